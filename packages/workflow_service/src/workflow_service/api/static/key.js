// The person's key: it arrives in the address (#key=…) or by hand, and lives in this tab only.

const STORE = "workflow-service-key";

/** What follows # in the address, as a map of names to decoded values. */
export function readFragment(hash = location.hash) {
  const fields = new Map();
  for (const part of hash.replace(/^#/, "").split("&")) {
    const at = part.indexOf("=");
    if (at > 0) fields.set(part.slice(0, at), decode(part.slice(at + 1)));
  }
  return fields;
}

// Not URLSearchParams: it would turn the + of a base64 key into a space.
function decode(value) {
  try {
    return decodeURIComponent(value);
  } catch {
    return value; // a lone % in a key that was pasted unescaped
  }
}

/** Keep the key from the address, if there is one, and take it out of the address bar and the history entry. */
export function takeKeyFromAddress() {
  const fields = readFragment();
  const key = fields.get("key");
  if (key === undefined) return;
  keepKey(key);
  const run = fields.get("run");
  const rest = run === undefined ? "" : `#run=${encodeURIComponent(run)}`;
  history.replaceState(null, "", location.pathname + location.search + rest);
}

/** The key, or null. */
export function currentKey() {
  return sessionStorage.getItem(STORE);
}

export function keepKey(key) {
  sessionStorage.setItem(STORE, key.trim());
}

export function forgetKey() {
  sessionStorage.removeItem(STORE);
}
