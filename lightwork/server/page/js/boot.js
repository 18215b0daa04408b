// Runs before the modules are loaded, and imports nothing.
//
// It opens the feed at once, so that the snapshot and the modules load at the same time. `feed.js` takes the socket.
//
// It also reloads the page if the page did not start. When the network changes (a laptop finds its Wi-Fi, a container
// starts or stops), a browser aborts what it is loading, even from the same machine, and does not retry a module.

{
  const KEY = "lightwork.loads";
  const MOST = 8;

  const url = new URL("api/v1/feed", document.baseURI);
  url.protocol = url.protocol.replace("http", "ws");
  const socket = new WebSocket(url);
  const early = { socket, messages: [] };
  socket.onopen = () => socket.send('{"type": "hello", "run": null, "last": null}');
  socket.onmessage = (event) => early.messages.push(event);
  globalThis.lightworkEarly = early;

  const seen = () => {
    try {
      return Number(sessionStorage.getItem(KEY) ?? 0);
    } catch {
      return MOST; // without storage the number of reloads is unknown: do not reload, rather than reload forever
    }
  };

  const note = (loads) => {
    if (loads < MOST) sessionStorage.setItem(KEY, String(loads));
    return loads;
  };

  addEventListener("load", () => {
    if (document.querySelector("[data-page]")) {
      if (seen() > 0) note(0);
      return;
    }
    const loads = note(seen() + 1);
    if (loads < MOST) setTimeout(() => location.reload(), 150 * loads);
  });
}
