// What every part of the page shares: the words, the place, the selection, the picture that was dropped.
import { createContext, useContext, useEffect, useLayoutEffect, useState } from "./vendor/preact.js";
import { Problem } from "./api.js";

export const App = createContext(null);
export const useApp = () => useContext(App);

/** One line that says what went wrong, and how to mend it where that is known. */
export function told(t, error) {
  if (!(error instanceof Problem)) return String(error?.message ?? error);
  if (error.status === 0) return t("error_offline");
  if (error.status === 401) return t("error_token");
  return error.message;
}

/** What somebody types is the field's own until it is committed, whatever is drawn anew meanwhile; it follows `value` when that changes. */
export function useDraft(value) {
  const [text, type] = useState(value);
  useLayoutEffect(() => type(value), [value]); // at once: after the paint it would take the next keys away
  return [text, type];
}

/** What an address answers: {data, error, loading, reload}; loaded anew when `key` changes. */
export function useLoad(key, load) {
  const [state, set] = useState({ loading: true });
  const [turn, again] = useState(0);
  useEffect(() => {
    const stop = new AbortController();
    set((before) => ({ data: before.key === key ? before.data : undefined, key, loading: true }));
    load(stop.signal).then(
      (data) => !stop.signal.aborted && set({ data, key, loading: false }),
      (error) => !stop.signal.aborted && set({ error, key, loading: false }),
    );
    return () => stop.abort();
  }, [key, turn]);
  return { ...state, reload: () => again((n) => n + 1) };
}

/** Hits page by page: {hits, warnings, more, loading, error, next, reload}. Old ones stay until new ones are there. */
export function useHits(key, load, size) {
  const none = { key, hits: [], warnings: [], more: false, loading: true, stale: false };
  const [state, set] = useState(none);
  const [turn, again] = useState(0);
  const [page, turnTo] = useState({ key, offset: 0 });
  const offset = page.key === key ? page.offset : 0;
  useEffect(() => {
    const stop = new AbortController();
    set((old) => ({ ...old, key, loading: true, error: undefined, stale: old.key !== key || !offset }));
    load({ offset, k: size, signal: stop.signal }).then(
      (found) =>
        !stop.signal.aborted &&
        set((old) => ({
          key,
          hits: offset ? unique([...old.hits, ...found.hits]) : found.hits,
          warnings: found.warnings,
          more: found.more,
          loading: false,
          stale: false,
        })),
      (error) => !stop.signal.aborted && set((old) => ({ ...old, hits: offset ? old.hits : [], more: offset > 0, error, loading: false, stale: false })),
    );
    return () => stop.abort();
  }, [key, offset, turn]);
  const other = state.key !== key; // the address has changed, and what it asks for is not even on its way
  return {
    ...state,
    loading: state.loading || other,
    stale: state.stale || other,
    next: () => !state.loading && state.more && turnTo({ key, offset: state.hits.length }),
    reload: () => again((n) => n + 1),
  };
}

function unique(hits) {
  const seen = new Set();
  return hits.filter((hit) => !seen.has(hit.id) && seen.add(hit.id));
}

export const name = (file) => file.split(/[\\/]/).pop();

/** A date as people write it in this language; what is no date stays as it is. */
export function day(t, text) {
  const date = text && new Date(text);
  if (!date || Number.isNaN(date.getTime())) return text || "";
  return new Intl.DateTimeFormat(t.lang, { dateStyle: "medium" }).format(date);
}

export function bytes(t, count) {
  const units = ["byte", "kilobyte", "megabyte", "gigabyte", "terabyte"];
  const step = Math.min(units.length - 1, Math.floor(Math.log(Math.max(count, 1)) / Math.log(1000)));
  const digits = { style: "unit", unit: units[step], unitDisplay: "short", maximumFractionDigits: step > 1 ? 1 : 0 };
  return new Intl.NumberFormat(t.lang, digits).format(count / 1000 ** step);
}

export async function copy(app, texts) {
  try {
    await navigator.clipboard.writeText(texts.join("\n"));
    app.toast(app.t("copied", { n: texts.length }));
  } catch {
    app.toast(app.t("copy_failed"), "warn");
  }
}

/** Let the browser save a file that the page made. */
export function save(filename, parts, type) {
  const link = document.createElement("a");
  link.href = typeof parts === "string" && parts.startsWith("data:") ? parts : URL.createObjectURL(new Blob([parts], { type }));
  link.download = filename;
  link.click();
  if (link.href.startsWith("blob:")) setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

/** Hits as CSV. A cell that a spreadsheet would take for a formula gets a quote before it. */
export function asCsv(hits) {
  const cell = (value) => {
    let text = value === null || value === undefined ? "" : String(value);
    if (typeof value === "string" && /^[=+\-@\t\r]/.test(text)) text = `'${text}`;
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  const columns = ["file", "score", "caption", "date", "width", "height", "id"];
  return `\ufeff${[columns, ...hits.map((hit) => columns.map((column) => hit[column]))].map((row) => row.map(cell).join(",")).join("\r\n")}\r\n`;
}
