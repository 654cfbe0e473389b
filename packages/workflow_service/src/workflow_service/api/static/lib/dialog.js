// Questions in a window of their own.

/**
 * Show the dialog until one of its buttons with `data-answer` is pressed; resolves to that answer, or to null if it
 * was left with Escape. The focus is where it was afterwards: the browser sees to that.
 */
export function ask(dialog) {
  return new Promise((resolve) => {
    const answer = (event) => {
      const button = event.target.closest("[data-answer]");
      if (button !== null) dialog.close(button.dataset.answer);
    };
    const end = () => {
      dialog.removeEventListener("click", answer);
      resolve(dialog.returnValue === "" ? null : dialog.returnValue);
    };
    dialog.returnValue = "";
    dialog.addEventListener("click", answer);
    dialog.addEventListener("close", end, { once: true });
    dialog.showModal();
  });
}
