// The person's key: it arrives in the address (#key=…) or by hand, and lives in this tab only.

import { addressOf, readAddress } from "./address.js";

const STORE = "workflow-service-key";

/** Keep the key from the address, if there is one, and take it out of the address bar and the history entry. */
export function takeKeyFromAddress() {
  const fields = readAddress();
  const key = fields.get("key");
  if (key === undefined) return;
  keepKey(key);
  fields.delete("key");
  const rest = fields.size === 0 ? "" : addressOf(...fields);
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
