// The token: it arrives in the address (#token=…) or by hand, and lives in this tab only.

const STORE = "homeloop-token";

/** What follows # in the address, as a map of names to values. */
export function readFragment() {
  return new URLSearchParams(location.hash.replace(/^#/, "")); // the token has letters, digits, - and _ only
}

/** Keep the token from the address, if there is one, and take it out of the address bar and the history. */
export function takeTokenFromAddress() {
  const fields = readFragment();
  const token = fields.get("token");
  if (token === null) return;
  keepToken(token);
  fields.delete("token");
  history.replaceState(null, "", location.pathname + (fields.size ? `#${fields}` : ""));
}

/** The token, or null. */
export function currentToken() {
  return sessionStorage.getItem(STORE);
}

export function keepToken(token) {
  sessionStorage.setItem(STORE, token.trim());
}

export function forgetToken() {
  sessionStorage.removeItem(STORE);
}
