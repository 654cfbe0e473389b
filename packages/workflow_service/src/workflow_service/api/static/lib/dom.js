// Building elements. Whatever comes from the server becomes a text node or an attribute, never markup.

/** The element of index.html with this id. */
export function byId(id) {
  const found = document.getElementById(id);
  if (found === null) throw new Error(`index.html has no element with id ${id}`);
  return found;
}

/** A new element. Children are elements or texts; null and undefined are left out. */
export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    made.setAttribute(name, value === true ? "" : String(value));
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

/** Scroll `target` into view, gently unless the person asked for less motion. */
export function scrollTo(target, block = "center") {
  const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  target.scrollIntoView({ block, behavior: calm ? "auto" : "smooth" });
}

/** A button that does `action` when it is pressed. */
export function button(text, attributes, action) {
  const made = element("button", { type: "button", ...attributes }, text);
  made.addEventListener("click", action);
  return made;
}

/** Put `text` into a live region; the same words again would be read out again. */
export function say(region, text) {
  if (region.textContent !== text) region.textContent = text;
}
