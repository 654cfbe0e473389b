// Numbers, times and codes as people read them.

const UNITS = ["B", "KB", "MB", "GB"];
const dateTime = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
const dateOnly = new Intl.DateTimeFormat(undefined, { dateStyle: "long", timeZone: "UTC" });

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

/** An ISO date (2026-01-31) in the person's language; any other text as it is. */
export function date(text) {
  return /^\d{4}-\d{2}-\d{2}$/.test(text) ? dateOnly.format(new Date(text)) : text;
}

/** "governing_law" as "Governing law". */
export function label(code) {
  const words = String(code).replaceAll(/[_-]+/g, " ").trim();
  return words.charAt(0).toUpperCase() + words.slice(1);
}

export function count(number, one, many = `${one}s`) {
  return `${number} ${number === 1 ? one : many}`;
}
