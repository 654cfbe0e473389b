// Start of the page: which view is shown, and who the person is.

import { byId } from "./dom.js";
import { explain, sentence } from "./explain.js";
import { currentKey, forgetKey, keepKey, readFragment, takeKeyFromAddress } from "./key.js";
import { RunView } from "./run-view.js";
import * as service from "./service.js";
import { StartView } from "./start-view.js";

const VIEWS = ["sign-in", "start", "run"];

const start = new StartView((id) => { location.hash = `run=${encodeURIComponent(id)}`; }, askForKey);
const run = new RunView(askForKey);

function show(view, title) {
  for (const name of VIEWS) byId(`view-${name}`).hidden = name !== view;
  byId("forget-key").hidden = view === "sign-in";
  document.title = title;
  // A screen reader follows the focus; without this it would stay in the view that is gone.
  byId(`${view === "sign-in" ? "sign-in" : view}-title`).focus({ preventScroll: true });
  window.scrollTo(0, 0);
}

function route() {
  takeKeyFromAddress();
  run.close();
  byId("notice").hidden = true;
  if (currentKey() === null) return showSignIn("");
  const id = readFragment().get("run");
  if (id !== undefined) {
    show("run", "Analysis · Contract analysis");
    run.open(id);
  } else {
    show("start", "Contract analysis");
    start.open();
  }
}

function showSignIn(error) {
  show("sign-in", "Enter your key · Contract analysis");
  byId("key-error").textContent = error;
  byId("key").setAttribute("aria-invalid", String(error !== ""));
  byId("key").focus();
}

function askForKey(problem) {
  forgetKey();
  run.close();
  showSignIn(sentence(problem));
}

async function signIn(event) {
  event.preventDefault();
  const field = byId("key");
  if (field.value.trim() === "") return showSignIn("Please enter a key.");
  keepKey(field.value);
  try {
    await service.listRuns(null, 1);
  } catch (error) {
    forgetKey();
    return showSignIn(sentence(error));
  }
  field.value = "";
  route();
}

function notify(error) {
  const { title, detail, advice } = explain(error);
  byId("notice-title").textContent = title;
  byId("notice-detail").textContent = [detail, advice].filter(Boolean).join(" ");
  byId("notice").hidden = false;
}

byId("key-form").addEventListener("submit", signIn);
byId("notice-close").addEventListener("click", () => { byId("notice").hidden = true; });
byId("forget-key").addEventListener("click", () => {
  forgetKey();
  run.close();
  showSignIn("");
});
byId("skip").addEventListener("click", (event) => {
  event.preventDefault(); // the fragment is the page's address, not a place in it
  byId("main").focus();
});
window.addEventListener("hashchange", route);
window.addEventListener("unhandledrejection", (event) => notify(event.reason));
window.addEventListener("error", (event) => notify(event.error));
route();
