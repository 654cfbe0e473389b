// Numbers, times and codes as people read them.

const UNITS = ["B", "KB", "MB", "GB"];
const dateTime = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });

export function size(bytes) {
  let value = bytes;
  let unit = 0;
  while (value >= 1024 && unit < UNITS.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${unit === 0 ? value : value.toFixed(1)} ${UNITS[unit]}`;
}

/** An ISO time in the person's zone and language. */
export function time(iso) {
  const at = new Date(iso);
  return Number.isNaN(at.getTime()) ? String(iso) : dateTime.format(at);
}

/** "governing_law" as "Governing law". */
export function label(code) {
  return sentenceCase(String(code).replaceAll(/[_-]+/g, " ").trim());
}

export function sentenceCase(text) {
  const [first = "", ...rest] = text; // by code points
  return first.toLocaleUpperCase() + rest.join("");
}

export function count(number, one, many = `${one}s`) {
  return `${number} ${number === 1 ? one : many}`;
}
