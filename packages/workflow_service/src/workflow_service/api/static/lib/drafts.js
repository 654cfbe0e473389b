// What was filled in and not sent yet: kept in this tab, so that neither a reload nor a refused key loses it.

const PREFIX = "workflow-service-draft:";

/** What was kept for the workflow, or null. */
export function readDraft(workflow) {
  try {
    return JSON.parse(sessionStorage.getItem(PREFIX + workflow));
  } catch {
    return null; // nobody's but an older release's
  }
}

export function keepDraft(workflow, values) {
  try {
    sessionStorage.setItem(PREFIX + workflow, JSON.stringify(values));
  } catch {
    // The tab's storage is full. The form itself still has everything.
  }
}

export function forgetDraft(workflow) {
  sessionStorage.removeItem(PREFIX + workflow);
}

/** Forget all: another person may use the tab next. */
export function forgetDrafts() {
  for (const name of Object.keys(sessionStorage)) if (name.startsWith(PREFIX)) sessionStorage.removeItem(name);
}
