// Start of the page: which view is shown, and who the person is.

import { addressOf, addressOfRun, readAddress } from "./lib/address.js";
import { byId, say } from "./lib/dom.js";
import { forgetDrafts } from "./lib/drafts.js";
import { explain, sentence } from "./lib/explain.js";
import { currentKey, forgetKey, keepKey, takeKeyFromAddress } from "./lib/key.js";
import * as service from "./lib/service.js";
import { label } from "./lib/words.js";
import { forgetTitles } from "./run/run-titles.js";
import { HealthView } from "./views/health-view.js";
import { RunView } from "./views/run-view.js";
import { RunsView } from "./views/runs-view.js";
import { ServicesView } from "./views/services-view.js";
import { StartView } from "./views/start-view.js";
import { WorkflowView } from "./views/workflow-view.js";

const SERVICE = "Workflow service";

const views = {
  start: new StartView(askForKey, tryAgain),
  workflow: new WorkflowView(askForKey),
  runs: new RunsView(askForKey, tryAgain),
  run: new RunView(askForKey, leaveDeleted),
  services: new ServicesView(askForKey),
  health: new HealthView(askForKey),
};

let listAddress = addressOf(["runs", ""]); // of the list that the person came from
let farewell = ""; // what is to be said in the next view

/** Which view the address names, its title, what of the navigation it belongs to, and how it is opened. */
function whereTo(fields) {
  if (fields.has("run")) return ["run", "Run", "runs", (view) => view.open(fields.get("run"))];
  if (fields.has("workflow") && !fields.has("runs")) {
    const name = fields.get("workflow");
    return ["workflow", label(name), "start", (view) => view.open(name, fields.get("from") ?? null)];
  }
  if (fields.has("runs")) {
    const filters = { status: fields.get("status"), workflow_name: fields.get("workflow") };
    return ["runs", "Runs", "runs", (view) => view.open(filters)];
  }
  if (fields.has("services")) return ["services", "Services", "services", (view) => view.open()];
  if (fields.has("health")) return ["health", "Health", "health", (view) => view.open()];
  return ["start", "New run", "start", (view) => view.open()];
}

function show(name, title, part) {
  for (const each of ["sign-in", ...Object.keys(views)]) byId(`view-${each}`).hidden = each !== name;
  byId("forget-key").hidden = name === "sign-in";
  byId("nav").hidden = name === "sign-in";
  for (const link of byId("nav").querySelectorAll("a")) {
    if (link.dataset.part === part) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = title === SERVICE ? title : `${title} · ${SERVICE}`;
  // A screen reader follows the focus; without this it would stay in the view that is gone.
  byId(`${name}-title`).focus({ preventScroll: true });
  window.scrollTo(0, 0);
}

function closeViews() {
  for (const view of Object.values(views)) view.close();
}

function route() {
  takeKeyFromAddress();
  closeViews();
  byId("notice").hidden = true;
  if (currentKey() === null) return showSignIn("");
  const fields = readAddress();
  if (fields.has("runs")) listAddress = location.hash;
  byId("run-back").href = listAddress;
  const [name, title, part, open] = whereTo(fields);
  show(name, title, part);
  say(byId("farewell"), farewell);
  farewell = "";
  open(views[name]);
}

function showSignIn(error) {
  show("sign-in", "Enter your key", null);
  byId("key-error").textContent = error;
  byId("key").setAttribute("aria-invalid", String(error !== ""));
  byId("key").focus();
}

// What the person has filled in stays: it is there again behind the right key.
function askForKey(problem) {
  forgetKey();
  closeViews();
  showSignIn(sentence(problem));
}

async function signIn(event) {
  event.preventDefault();
  const field = byId("key");
  if (field.value.trim() === "") return showSignIn("Please enter a key.");
  keepKey(field.value);
  try {
    await service.listRuns({ limit: 1 });
  } catch (error) {
    forgetKey();
    return showSignIn(sentence(error));
  }
  field.value = "";
  route();
}

async function tryAgain(run) {
  try {
    await service.resumeRun(run.id);
    location.hash = addressOfRun(run.id);
  } catch (error) {
    if (explain(error).status === 401) askForKey(error);
    else notify(error);
  }
}

function leaveDeleted() {
  farewell = "The run was deleted.";
  location.hash = listAddress;
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
  forgetDrafts();
  forgetTitles();
  closeViews();
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
