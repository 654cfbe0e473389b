// Building elements. Whatever comes from the process becomes a text node or an attribute, never markup.

/** The element of index.html with this id. */
export function byId(id) {
  const found = document.getElementById(id);
  if (found === null) throw new Error(`index.html has no element with id ${id}`);
  return found;
}

/** A new element. Children are elements or texts; null and undefined are left out. */
export function element(tag, attributes = {}, ...children) {
  return build(document.createElement(tag), attributes, children);
}

/** A new element of an image. */
export function shape(tag, attributes = {}, ...children) {
  return build(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function build(made, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) setAttribute(made, name, value);
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

/** Set an attribute, or take it away with null or false; nothing happens if it is so already. */
export function setAttribute(target, name, value) {
  if (value === null || value === undefined || value === false) target.removeAttribute(name);
  else if (target.getAttribute(name) !== String(value === true ? "" : value)) target.setAttribute(name, value === true ? "" : String(value));
}

/** Set a text; nothing happens if it is so already, so that a selection in it stays. */
export function setText(target, text) {
  if (target.textContent !== String(text)) target.textContent = String(text);
}

const kept = new WeakMap(); // list: Map of keys to its elements

/**
 * Let the children of `list` be those of `items`, in their order.
 *
 * What is there already is brought up to date instead of made anew: focus, selection and what is open stay.
 * `make(item)` returns an element, `update(element, item)` fills it.
 */
export function keepList(list, items, keyOf, make, update) {
  const before = kept.get(list) ?? new Map();
  const now = new Map();
  const focused = list.contains(document.activeElement) ? document.activeElement : null;
  for (const item of items) {
    let key = keyOf(item);
    while (now.has(key)) key += "'"; // two that nothing tells apart
    const found = before.get(key) ?? make(item);
    update(found, item);
    now.set(key, found);
  }
  for (const [key, old] of before) if (!now.has(key)) old.remove();
  let at = list.firstElementChild;
  for (const each of now.values()) {
    if (each === at) at = at.nextElementSibling;
    else list.insertBefore(each, at);
  }
  kept.set(list, now);
  if (focused !== null && focused !== document.activeElement && focused.isConnected) focused.focus({ preventScroll: true });
}
