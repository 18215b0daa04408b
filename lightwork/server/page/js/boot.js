// Runs before the modules are there, and by itself.
//
// It opens the feed at once, so that the snapshot comes while the modules do; `feed.js` takes the socket over.
//
// And it loads the page anew where it did not come up: a browser whose network changes (a laptop that finds its Wi-Fi, a
// container that comes or goes) breaks off what it is loading, from this very machine too, and does not ask again for a
// module that did not arrive.

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
      return MOST; // without storage it is not known how often: not at all, rather than for ever
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
