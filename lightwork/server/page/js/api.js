// Requests to the server. Addresses are relative to the page, because it may be mounted below a prefix.

const BASE = new URL("api/v1/", document.baseURI);

export const apiUrl = (path) => new URL(path, BASE).href;

let skew = 0;

/** Return seconds since the epoch by the server's clock, to a second or two. All displayed times are by that clock. */
export const serverTime = () => Date.now() / 1000 - skew;

function compareClocks(response) {
  const date = Date.parse(response.headers.get("Date") ?? "");
  if (Number.isNaN(date)) return;
  // The header has whole seconds, so a difference below two seconds is ignored.
  const found = (Date.now() - date - 500) / 1000;
  skew = Math.abs(found) < 2 ? 0 : found;
}

/** A request failed. `code` is the server's error code, or "unreachable" without an answer. */
export class ApiError extends Error {
  constructor(status, code, message, detail) {
    super(message);
    this.status = status;
    this.code = code;
    this.detail = detail;
  }
}

/** The server needs a token, or the token is wrong. */
export class AccessError extends ApiError {}

const AGAIN = 300;
const NO_ANSWER = "The app does not answer. It may have ended, or the connection is lost.";

async function request(method, path, body) {
  const given = { method, headers: { Accept: "application/json" }, credentials: "same-origin" };
  if (body !== undefined) {
    given.headers["Content-Type"] = "application/json";
    given.body = JSON.stringify(body);
  }
  let response;
  let text;
  // A GET is sent up to two times: a browser aborts requests when its network changes.
  for (let tries = method === "GET" ? 2 : 1; ; ) {
    try {
      response = await fetch(apiUrl(path), given);
      compareClocks(response);
      text = await response.text();
      break;
    } catch {
      tries -= 1;
      if (tries === 0) throw new ApiError(0, "unreachable", NO_ANSWER, null);
      await new Promise((go) => setTimeout(go, AGAIN));
    }
  }
  let data = null;
  try {
    data = text === "" ? null : JSON.parse(text);
  } catch {
    throw new ApiError(response.status, "bad_answer", `The answer to ${method} ${path} is not JSON`, null);
  }
  if (response.ok) return data;
  const { code = "internal", message = response.statusText, detail = null } = data?.error ?? {};
  throw new (response.status === 401 ? AccessError : ApiError)(response.status, code, message, detail);
}

/** Return a path below /api/v1 with escaped parts, and a query of all values that are not empty. */
export function path(parts, query = {}) {
  const search = new URLSearchParams();
  for (const [key, value] of Object.entries(query))
    for (const one of Array.isArray(value) ? value : [value])
      if (one !== undefined && one !== null && one !== "") search.append(key, one);
  const text = search.toString();
  return parts.map(encodeURIComponent).join("/") + (text ? `?${text}` : "");
}

export const get = (parts, query) => request("GET", path(parts, query));
export const post = (parts, body = {}, query = {}) => request("POST", path(parts, query), body);
export const patch = (parts, body) => request("PATCH", path(parts), body);

/** Check that this page has access to the server; throw the error if it has not. */
export const checkAccess = () => get(["app"]);

export const addressOf = (parts, query) => apiUrl(path(parts, query));
