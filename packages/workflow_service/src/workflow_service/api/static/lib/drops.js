// Files dropped on the window go to the box that is there for them; none ever replaces the page.

const boxes = new Map(); // element: what hears of files that are dropped

/** Let files be dropped on `box`, or anywhere while it is the only box to be seen. `onFiles(files)` hears of them. */
export function acceptDrops(box, onFiles) {
  if (boxes.size === 0) listen();
  boxes.set(box, onFiles);
}

function listen() {
  const lit = () => [...boxes.keys()].filter((box) => box.classList.contains("over"));
  const dim = () => lit().forEach((box) => box.classList.remove("over"));
  const carriesFiles = (event) => event.dataTransfer.types.includes("Files");
  window.addEventListener("dragover", (event) => {
    if (!carriesFiles(event)) return;
    event.preventDefault();
    const goal = goalOf(event.target);
    if (goal?.classList.contains("over")) return;
    dim();
    goal?.classList.add("over");
  });
  window.addEventListener("dragleave", (event) => {
    if (event.relatedTarget === null) dim();
  });
  window.addEventListener("drop", (event) => {
    if (!carriesFiles(event)) return;
    event.preventDefault();
    dim();
    const goal = goalOf(event.target);
    if (goal !== null) boxes.get(goal)([...event.dataTransfer.files]);
  });
}

function goalOf(target) {
  for (const box of boxes.keys()) if (!box.isConnected) boxes.delete(box);
  const seen = [...boxes.keys()].filter((box) => box.checkVisibility());
  return seen.find((box) => box.contains(target)) ?? (seen.length === 1 ? seen[0] : null);
}
