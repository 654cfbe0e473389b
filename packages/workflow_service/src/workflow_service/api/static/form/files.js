// Which files the service takes.

import { size } from "../lib/words.js";

/** The endings of names that the service reads. */
export const ENDINGS = [".pdf", ".docx", ".md", ".txt"];

/** Why the service would not take the file, or null. `maxBytes` may be unknown: null. */
export function refusalOf(file, maxBytes) {
  const ending = (/\.[^.]+$/.exec(file.name) ?? [""])[0].toLowerCase();
  if (!ENDINGS.includes(ending)) {
    return `“${file.name}” cannot be read. Use a PDF, Word (DOCX), Markdown (.md) or text (.txt) file.`;
  }
  if (file.size === 0) return `“${file.name}” is empty. Choose another file.`;
  if (maxBytes !== null && file.size > maxBytes) {
    return (
      `“${file.name}” is too large: ${size(file.size)}, and at most ${size(maxBytes)} can be read. ` +
      "Split it, or save it with smaller images."
    );
  }
  return null;
}
