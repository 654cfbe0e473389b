// What follows # in the address: where the person is on the page.

/** The fields of the address, as a map of names to decoded values; `#runs&status=dead` has `runs` ("") and `status`. */
export function readAddress(hash = location.hash) {
  const fields = new Map();
  for (const part of hash.replace(/^#/, "").split("&")) {
    const at = part.indexOf("=");
    if (part === "" || at === 0) continue;
    if (at === -1) fields.set(part, "");
    else fields.set(part.slice(0, at), decode(part.slice(at + 1)));
  }
  return fields;
}

/** The address of `fields`, `[name, value]` each; those with a null value are left out, an empty value is a bare name. */
export function addressOf(...fields) {
  const kept = fields.filter(([, value]) => value !== null && value !== undefined);
  return `#${kept.map(([name, value]) => (value === "" ? name : `${name}=${encodeURIComponent(value)}`)).join("&")}`;
}

export const addressOfRun = (id) => addressOf(["run", id]);

// Not URLSearchParams: it would turn the + of a base64 key into a space.
function decode(value) {
  try {
    return decodeURIComponent(value);
  } catch {
    return value; // a lone % in a key that was pasted unescaped
  }
}
