// Numbers, times and codes as people read them.

const UNITS = ["B", "KB", "MB", "GB"];
const DATE_TIMES = Object.fromEntries(
  ["short", "medium"].map((timeStyle) => [timeStyle, new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle })]),
);

export function size(bytes) {
  let value = bytes;
  let unit = 0;
  while (value >= 1024 && unit < UNITS.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${unit === 0 ? value : value.toFixed(1)} ${UNITS[unit]}`;
}

/** An ISO time in the person's zone and language; "medium" tells seconds, too. */
export function time(iso, style = "short") {
  const at = new Date(iso);
  return Number.isNaN(at.getTime()) ? String(iso) : DATE_TIMES[style].format(at);
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

const TENTHS = new Intl.NumberFormat(undefined, { maximumFractionDigits: 1 });

/** Seconds as a person says them: 0.0042 is "4.2 ms", 75 is "1 min 15 s". */
export function seconds(value) {
  if (value < 1) return `${TENTHS.format(value * 1000)} ms`;
  if (value < 60) return `${TENTHS.format(value)} s`;
  const whole = Math.round(value);
  const [hours, minutes, rest] = [Math.floor(whole / 3600), Math.floor((whole % 3600) / 60), whole % 60];
  return [hours && `${hours} h`, minutes && `${minutes} min`, !hours && rest && `${rest} s`].filter(Boolean).join(" ");
}

/** The time between two ISO times, or "" if one is missing. */
export function between(from, to) {
  const span = (new Date(to) - new Date(from)) / 1000;
  return from && to && span >= 0 ? seconds(span) : "";
}
