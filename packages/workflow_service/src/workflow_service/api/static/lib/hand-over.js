// Giving text to the person: on the clipboard or as a file.

/** Put `text` on the clipboard; false if the browser does not let the page. */
export async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text); // there on https and on this machine's own addresses only
    return true;
  } catch {
    return copySelected(text);
  }
}

function copySelected(text) {
  const focused = document.activeElement;
  const area = document.createElement("textarea");
  area.className = "visually-hidden";
  area.value = text;
  document.body.append(area);
  area.select();
  try {
    return document.execCommand("copy");
  } finally {
    area.remove();
    focused?.focus({ preventScroll: true });
  }
}

/** Save `text` as a file of that name among the person's downloads. */
export function saveText(name, mediaType, text) {
  const address = URL.createObjectURL(new Blob([text], { type: mediaType }));
  const link = document.createElement("a");
  link.href = address;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 60_000); // the browser may ask where to, before it reads
}
