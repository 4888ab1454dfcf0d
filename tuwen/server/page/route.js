// Where we are is in the address: the back button, a bookmark and a new tab all work.
import { useLayoutEffect, useState } from "./vendor/preact.js";

/** Keys of a search; everything else in the address is a place (`view`, `album`, `picture`). */
export const ASKED = ["q", "without", "mode", "folder", "after", "before", "camera", "format", "min_side", "sort", "all", "weight"];

const listeners = new Set();

export function here() {
  return Object.fromEntries(new URLSearchParams(location.search));
}

export function address(route) {
  const set = Object.entries(route).filter(([, value]) => value !== undefined && value !== null && value !== "");
  const query = new URLSearchParams(set).toString();
  return query ? `?${query}` : location.pathname;
}

/** Go there; `replace` where the step should not be one of the back button's. */
export function go(route, { replace = false } = {}) {
  const to = address(route);
  if (to !== (location.search || location.pathname)) history[replace ? "replaceState" : "pushState"]({ inside: true }, "", to);
  for (const listener of listeners) listener();
}

/** Leave what lies above the page (a picture): back where the step came from inside, else to the address without it. */
export function leave(key) {
  const { [key]: _, ...rest } = here();
  if (history.state?.above) history.back();
  else go(rest, { replace: true });
}

/** Put something above the page, so that one step back takes it away. */
export function above(key, value) {
  const there = here();
  const to = address({ ...there, [key]: value });
  if (there[key]) history.replaceState(history.state, "", to);
  else history.pushState({ inside: true, above: true }, "", to);
  for (const listener of listeners) listener();
}

export function useRoute() {
  const [route, set] = useState(here);
  useLayoutEffect(() => { // before anybody can click: a step that nobody hears of changes the address alone
    const changed = () => set(here());
    listeners.add(changed);
    addEventListener("popstate", changed);
    return () => {
      listeners.delete(changed);
      removeEventListener("popstate", changed);
    };
  }, []);
  return route;
}

/** What a link does: a plain click stays in the page, any other (new tab, middle button) is the browser's. */
export function follow(act) {
  return (event) => {
    if (event.defaultPrevented || event.button || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
    event.preventDefault();
    act(event);
  };
}
