// The page: where one is, what is chosen, and the keys that work everywhere.
import { html, render, useCallback, useEffect, useErrorBoundary, useMemo, useRef, useState } from "./vendor/preact.js";
import { App, asCsv, copy, save, useApp, useLoad } from "./app.js";
import { stats as readStats } from "./api.js";
import { AddToAlbum, Albums } from "./albums.js";
import { Draw } from "./draw.js";
import { Duplicates } from "./duplicates.js";
import { Results, SearchBox } from "./find.js";
import { Icon } from "./icons.js";
import { Library } from "./library.js";
import { Button, Dialog, Failure } from "./parts.js";
import { Picture } from "./picture.js";
import { address, follow, go, here, useRoute } from "./route.js";
import { read, remember } from "./settings.js";
import { speaker } from "./words.js";

const VIEWS = { albums: Albums, draw: Draw, duplicates: Duplicates, library: Library };
const PLACES = [["", "search"], ["albums", "album"], ["draw", "brush"], ["duplicates", "copies"], ["library", "library"]];
const THEMES = ["auto", "light", "dark"];

/** Chosen files, not contents: of two equal files one may choose one. */
function useSelection() {
  const [chosen, set] = useState(() => new Map());
  const [started, start] = useState(false);
  const last = useRef(null);
  return useMemo(() => {
    const change = (act) => set((before) => { const after = new Map(before); act(after); return after; });
    return {
      size: chosen.size,
      active: started || chosen.size > 0,
      start: () => start(true),
      has: (hit) => chosen.has(hit.file),
      hits: () => [...chosen.values()],
      clear: () => { set(new Map()); start(false); },
      add: (hits) => change((map) => hits.forEach((hit) => map.set(hit.file, hit))),
      toggle: (hit) => { last.current = hit.file; change((map) => (map.has(hit.file) ? map.delete(hit.file) : map.set(hit.file, hit))); },
      range: (hits, hit) => {
        const [from, to] = [hits.findIndex(({ file }) => file === last.current), hits.indexOf(hit)];
        const part = from < 0 ? [hit] : hits.slice(Math.min(from, to), Math.max(from, to) + 1);
        change((map) => part.forEach((one) => map.set(one.file, one)));
      },
    };
  }, [chosen, started]);
}

function Page() {
  const route = useRoute();
  const [lang, setLang] = useState(document.documentElement.lang);
  const [theme, setTheme] = useState(document.documentElement.dataset.theme || "auto");
  const [image, setImage] = useState(null); // {file, url}
  const [toasts, setToasts] = useState([]);
  const [said, say] = useState("");
  const [adding, add] = useState(false);
  const [helping, help] = useState(false);
  const selection = useSelection();
  const shown = useRef([]);
  const t = useMemo(() => speaker(lang), [lang]);
  const { data: stats } = useLoad(`stats ${route.view || ""}`, readStats);

  const toast = useCallback((text, kind = "") => {
    const key = Math.random();
    setToasts((before) => [...before.slice(-2), { key, text, kind }]);
    setTimeout(() => setToasts((before) => before.filter((one) => one.key !== key)), 4500);
  }, []);
  const take = useCallback((file) => {
    if (!file.type.startsWith("image/")) return toast(t("not_a_picture"), "warn");
    setImage((before) => { if (before) URL.revokeObjectURL(before.url); return { file, url: URL.createObjectURL(file) }; });
    const { q, weight } = here();
    go({ q: here().view ? "" : q, weight, image: "1" });
    return undefined;
  }, [t]);
  const forget = useCallback(() => { setImage(null); go({ ...here(), image: "", weight: "", picture: "" }); }, []);
  useEffect(() => {
    document.documentElement.lang = lang;
    document.title = route.q && !route.view ? `${route.q} · Tuwen` : VIEWS[route.view] ? `${t(route.view)} · Tuwen` : "Tuwen 图文";
    remember({ lang });
  }, [lang, route.q, route.view]);
  useEffect(() => {
    if (theme === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    remember({ theme });
  }, [theme]);
  // A dropped picture is not in the address: after a reload it is gone, and the address must not pretend otherwise.
  useEffect(() => { if (route.image && !image) go({ ...here(), image: "" }, { replace: true }); }, [route.image]);
  useEffect(() => { if (!route.picture) scrollTo({ top: 0 }); }, [route.view, route.album, route.q, route.like]);

  const using = image && route.image ? image : null;
  const app = { t, route, toast, say, selection, shown, stats, image: using, take, forget, theme, setTheme, setLang, help };
  useKeys(app, { adding, helping });
  const View = VIEWS[route.view] || Results;
  return html`<${App.Provider} value=${app}>
    <a class="skip" href="#main" onClick=${(event) => { event.preventDefault(); document.getElementById("main").focus(); }}>${t("skip")}</a>
    <${Top} />
    <main id="main" tabindex="-1"><${Safe} key=${route.view}><${View} /></${Safe}></main>
    <${Tabs} />
    ${route.picture && html`<${Picture} id=${route.picture} />`}
    <${Chosen} add=${() => add(true)} />
    ${adding && html`<${AddToAlbum} close=${() => add(false)} />`}
    ${helping && html`<${Help} close=${() => help(false)} />`}
    <${DropZone} />
    <div class="toasts" role="status">${toasts.map(({ key, text, kind }) => html`<p key=${key} class=${kind}>${text}</p>`)}</div>
    <p class="unseen" aria-live="polite">${said}</p>
  </${App.Provider}>`;
}

/** A fault of the page itself is told where it stands; the rest goes on. */
function Safe({ children }) {
  const [fault, again] = useErrorBoundary();
  return fault ? html`<${Failure} error=${fault} again=${again} />` : children;
}

const Place = ({ view, icon }) => {
  const { t, route } = useApp();
  const to = view ? { view } : {};
  return html`<a href=${address(to)} class="place" aria-current=${(route.view || "") === view ? "page" : undefined} onClick=${follow(() => go(to))}>
    <${Icon} name=${icon} /><span>${t(view || "search")}</span></a>`;
};

function Top() {
  const { t, theme, setTheme, setLang, help } = useApp();
  const next = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
  return html`<header class="top">
    <a class="logo" href=${location.pathname} aria-label=${t("brand")} onClick=${follow(() => go({}))}><b aria-hidden="true">图文</b><span aria-hidden="true">Tuwen</span></a>
    <${SearchBox} />
    <nav class="places" aria-label=${t("main_navigation")}>${PLACES.slice(1).map(([view, icon]) => html`<${Place} key=${view} view=${view} icon=${icon} />`)}</nav>
    <div class="tools">
      <button type="button" class="button plain" lang=${t.lang === "en" ? "zh" : "en"} onClick=${() => setLang(t.lang === "en" ? "zh" : "en")}><span>${t.lang === "en" ? "中文" : "English"}</span></button>
      <${Button} icon=${{ auto: "auto", light: "sun", dark: "moon" }[theme]} kind="plain" label=${`${t("theme")}: ${t(`theme_${theme}`)}`} onClick=${() => setTheme(next)} />
      <${Button} icon="help" kind="plain" label=${t("help")} onClick=${() => help(true)} />
    </div>
  </header>`;
}

const Tabs = () => {
  const { t } = useApp();
  return html`<nav class="tabs" aria-label=${t("main_navigation")}>${PLACES.map(([view, icon]) => html`<${Place} key=${view} view=${view} icon=${icon} />`)}</nav>`;
};

function Chosen({ add }) {
  const app = useApp();
  const { t, selection } = app;
  if (!selection.active) return null;
  const hits = selection.hits();
  return html`<div class="basket" role="region" aria-label=${t("selected", { n: hits.length })}>
    <b aria-live="polite">${t("selected", { n: hits.length })}</b>
    <${Button} icon="album" kind="dark" disabled=${!hits.length} onClick=${add}>${t("add_to_album")}</${Button}>
    <${Button} icon="copy" kind="dark" label=${t("copy_paths")} disabled=${!hits.length} onClick=${() => copy(app, hits.map((hit) => hit.file))} />
    <${Button} icon="download" kind="dark" label=${t("download_csv")} disabled=${!hits.length} onClick=${() => save("pictures.csv", asCsv(hits), "text/csv")} />
    <${Button} icon="close" kind="dark" label=${t("select_none")} onClick=${selection.clear} />
  </div>`;
}

function Help({ close }) {
  const { t } = useApp();
  const keys = [["/", "help_search"], [t("key_arrows"), "help_move"], [t("key_enter"), "help_open"], ["x", "help_select"], [t("key_shift_click"), "help_range"],
    ["a", "help_ask"], ["e", "help_edit"], [t("key_escape"), "help_escape"], ["?", "help_help"]];
  return html`<${Dialog} kind="small" label=${t("help")} close=${close}><h2>${t("help")}</h2>
    <dl class="keys">${keys.map(([key, does]) => html`<div key=${does}><dt><kbd>${key}</kbd></dt><dd>${t(does)}</dd></div>`)}</dl>
    <footer><a href="docs" target="_blank" rel="noopener">REST API</a><span class="space"></span><${Button} kind="main" onClick=${close}>${t("close")}</${Button}></footer></${Dialog}>`;
}

/** A picture may be dropped anywhere, or pasted. */
function DropZone() {
  const { t, take } = useApp();
  const [over, set] = useState(false);
  const deep = useRef(0);
  useEffect(() => {
    const files = (event) => event.dataTransfer?.types.includes("Files");
    const enter = (event) => { if (files(event)) { event.preventDefault(); deep.current += 1; set(true); } };
    const leave = (event) => { if (files(event) && --deep.current <= 0) { deep.current = 0; set(false); } };
    const hold = (event) => files(event) && event.preventDefault();
    const drop = (event) => {
      if (!files(event)) return;
      event.preventDefault();
      deep.current = 0;
      set(false);
      const [file] = event.dataTransfer.files;
      if (file) take(file);
    };
    const paste = (event) => {
      const file = [...(event.clipboardData?.files || [])].find(({ type }) => type.startsWith("image/"));
      if (file) { event.preventDefault(); take(file); }
    };
    const on = { dragenter: enter, dragleave: leave, dragover: hold, drop, paste };
    for (const [name, act] of Object.entries(on)) addEventListener(name, act);
    return () => { for (const [name, act] of Object.entries(on)) removeEventListener(name, act); };
  }, [take]);
  return over ? html`<div class="dropzone"><div><${Icon} name="picture" size="48" /><b>${t("drop")}</b><span>${t("drop_note")}</span></div></div>` : null;
}

function useKeys(app, { adding, helping }) {
  useEffect(() => {
    const press = (event) => {
      if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || adding || helping) return;
      const typing = event.target.closest?.("input, textarea, select");
      if (event.key === "Escape") {
        if (typing?.id === "q") typing.blur();
        else if (!typing && !document.querySelector("dialog[open]") && app.selection.active) app.selection.clear();
      } else if (typing) {
        if (typing.id === "q" && event.key === "ArrowDown") { event.preventDefault(); document.querySelector(".grid .open")?.focus(); }
      } else if (event.key === "?") app.help(true);
      else if (document.querySelector("dialog[open]")) return;
      else if (event.key === "/") { event.preventDefault(); const box = document.getElementById("q"); box.focus(); box.select(); }
      else if (event.key.startsWith("Arrow") && document.activeElement === document.body) { const first = document.querySelector(".grid .open"); if (first) { event.preventDefault(); first.focus(); } }
    };
    addEventListener("keydown", press);
    return () => removeEventListener("keydown", press);
  });
}

render(html`<${Page} />`, document.getElementById("app"));
