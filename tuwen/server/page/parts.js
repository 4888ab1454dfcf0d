// Small parts that several views use.
import { html, useEffect, useLayoutEffect, useRef } from "./vendor/preact.js";
import { told, useApp, useDraft } from "./app.js";
import { Icon } from "./icons.js";

export const Button = ({ icon, kind = "", label, children, ...rest }) => html`<button
  type="button" class=${`button ${kind}${icon && !children ? " only" : ""}`} aria-label=${label} title=${label} ...${rest}>
  ${icon && html`<${Icon} name=${icon} />`}${children && html`<span>${children}</span>`}
</button>`;

export const Spinner = ({ children }) => html`<span class="spin" role="status"><i aria-hidden="true"></i>${children}</span>`;

export const Warnings = ({ lines }) => {
  const { t } = useApp();
  if (!lines?.length) return null;
  return html`<ul class="warnings" aria-label=${t("warning")}>
    ${lines.map((line) => html`<li key=${line}><${Icon} name="warn" size="18" /><span>${line}</span></li>`)}
  </ul>`;
};

export const Failure = ({ error, again }) => {
  const { t } = useApp();
  return html`<div class="state" role="alert">
    <${Icon} name="warn" size="36" />
    <h2>${t("error_title")}</h2>
    <p>${told(t, error)}</p>
    ${again && html`<${Button} kind="quiet" onClick=${again}>${t("again")}</${Button}>`}
  </div>`;
};

export const State = ({ icon, title, children }) => html`<div class="state">
  <${Icon} name=${icon} size="36" />
  <h2>${title}</h2>
  ${children}
</div>`;

const SHAPES = [1.5, 0.75, 1.33, 1, 1.78, 0.67, 1.5, 1.33, 1, 0.75, 1.6, 1.4];

export const Skeleton = ({ count = 12 }) => html`<ul class="grid" aria-hidden="true">
  ${Array.from({ length: count }, (_, n) => html`<li key=${n} class="tile bone" style=${{ "--r": SHAPES[n % SHAPES.length] }}></li>`)}
</ul>`;

/** A modal dialog: the browser keeps the focus inside and gives it back; esc and a click beside it close. */
export function Dialog({ label, close, kind = "", children, onKeyDown }) {
  const ref = useRef();
  useLayoutEffect(() => {
    const dialog = ref.current;
    dialog.showModal();
    dialog.focus();
    return () => dialog.close();
  }, []);
  return html`<dialog ref=${ref} class=${kind} tabindex="-1" aria-label=${label} onKeyDown=${onKeyDown}
    onCancel=${(event) => { event.preventDefault(); close(); }}
    onClick=${(event) => event.target === ref.current && close()}>${children}</dialog>`;
}

/** A field that says what was typed when the browser finds it done: `commit(text)`. */
export function Field({ value, commit, ...rest }) {
  const [text, type] = useDraft(value);
  const done = (event) => {
    const said = event.currentTarget.value.trim();
    type(said);
    commit(said);
  };
  return html`<input ...${rest} value=${text} onInput=${(event) => type(event.currentTarget.value)} onChange=${done} />`;
}

/** A row of choices of which one holds. */
export const Choice = ({ label, options, value, set, small }) => html`<div class=${`choice${small ? " small" : ""}`} role="radiogroup" aria-label=${label}>
  ${options.map(([key, said]) => html`<button key=${key} type="button" role="radio" aria-checked=${key === value} tabindex=${key === value ? 0 : -1}
      onClick=${() => set(key)} onKeyDown=${(event) => step(event, options, value, set)}>${said}</button>`)}
</div>`;

function step(event, options, value, set) {
  const by = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
  if (!by) return;
  event.preventDefault();
  event.stopPropagation();
  const at = options.findIndex(([key]) => key === value);
  const to = (at + by + options.length) % options.length;
  set(options[to][0]);
  event.currentTarget.parentElement.children[to].focus();
}

/** Calls `seen` when it comes near the window: the next page loads before its place is reached. */
export function Sentinel({ seen }) {
  const ref = useRef();
  const latest = useRef(seen);
  latest.current = seen;
  useEffect(() => {
    const watch = new IntersectionObserver((entries) => entries.some((entry) => entry.isIntersecting) && latest.current(), { rootMargin: "300px" });
    watch.observe(ref.current);
    return () => watch.disconnect();
  }, []);
  return html`<div ref=${ref} class="sentinel"></div>`;
}
