// A stack: its frames, the innermost last.

import { element, keepList, setText } from "./dom.js";

export function frameList() {
  return element("ol", { class: "frames" });
}

export function fillFrames(list, frames) {
  keepList(list, frames.map((frame, at) => ({ frame, at })), ({ at }) => String(at), () => element("li"), (item, { frame }) => setText(item, frame));
}
