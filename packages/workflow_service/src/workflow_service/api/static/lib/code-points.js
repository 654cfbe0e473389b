// Places in a text: the service counts code points, JavaScript counts UTF-16 units.

/** Converts code point offsets into one text to UTF-16 offsets. */
export class CodePoints {
  #wide = []; // code point offsets of the characters that take two UTF-16 units

  constructor(text) {
    let count = 0;
    for (const character of text) {
      if (character.length === 2) this.#wide.push(count);
      count += 1;
    }
    this.length = count;
  }

  /** The UTF-16 offset of the character at code point offset `offset`; offsets past the end mean the end. */
  toUtf16(offset) {
    const within = Math.min(Math.max(offset, 0), this.length);
    let low = 0;
    let high = this.#wide.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.#wide[middle] < within) low = middle + 1;
      else high = middle;
    }
    return within + low;
  }
}
