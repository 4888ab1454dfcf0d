// The search box, its filters, and what was found.
import { html, useEffect, useLayoutEffect, useRef, useState } from "./vendor/preact.js";
import { useApp, useDraft, useHits } from "./app.js";
import { search } from "./api.js";
import { Grid } from "./grid.js";
import { Icon } from "./icons.js";
import { Button, Choice, Failure, Field, Sentinel, Skeleton, State, Warnings } from "./parts.js";
import { ASKED, address, follow, go, here } from "./route.js";
import { Dropped } from "./dropped.js";

const FILTERS = ["without", "after", "before", "folder", "camera", "format", "min_side"];
const SIDES = [640, 1280, 2560];

const pick = (route, keys) => Object.fromEntries(keys.filter((key) => route[key]).map((key) => [key, route[key]]));

export function SearchBox() {
  const { t, route, image, take, forget } = useApp();
  const [text, type] = useDraft(route.q || "");
  const [open, show] = useState(false);
  const input = useRef();
  const file = useRef();
  const submit = (event) => {
    event.preventDefault();
    const { q: _, all: __, ...kept } = pick(here(), [...ASKED, "image"]);
    go({ q: text.trim(), ...kept });
    if (matchMedia("(pointer: coarse)").matches) input.current.blur();
  };
  const count = FILTERS.filter((key) => route[key]).length + Number((route.mode || "vector") !== "vector") + Number(route.sort === "date");
  return html`<search class="find">
    <form class="box" onSubmit=${submit}>
      <span class="lens"><${Icon} name="search" /></span>
      ${image && html`<span class="chip picture"><img src=${image.url} alt=${t("your_picture")} />
        <button type="button" aria-label=${t("remove", { what: t("your_picture") })} onClick=${forget}><${Icon} name="close" size="14" /></button></span>`}
      <input ref=${input} id="q" type="search" name="q" value=${text} onInput=${(event) => type(event.currentTarget.value)} autocomplete="off"
        placeholder=${t("placeholder")} aria-label=${t("search_label")} maxlength="1000" enterkeyhint="search" />
      ${text && html`<${Button} icon="close" kind="plain" label=${t("clear")} onClick=${() => { type(""); input.current.focus(); if (route.q) go({ ...here(), q: "", picture: "" }); }} />`}
      <${Button} icon="picture" kind="plain" label=${t("by_picture")} onClick=${() => file.current.click()} />
      <input ref=${file} type="file" accept="image/*" hidden onChange=${(event) => { const [one] = event.currentTarget.files; if (one) take(one); event.currentTarget.value = ""; }} />
      <span class="bar" aria-hidden="true"></span>
      <button type="button" class="button plain filters" aria-expanded=${open} aria-controls="filters" aria-label=${t("filters")} title=${t("filters")} onClick=${() => show(!open)}>
        <${Icon} name="filter" />${count > 0 && html`<b class="badge">${count}</b>`}
      </button>
    </form>
    ${open && html`<${Filters} close=${() => { show(false); input.current.focus(); }} />`}
  </search>`;
}

function Filters({ close }) {
  const { t, route, stats } = useApp();
  const panel = useRef();
  const change = (key) => (value) => go({ ...pick(here(), [...ASKED, "image"]), [key]: value }, { replace: !here().view });
  useLayoutEffect(() => { // at once: a focus that comes late takes the keys from where somebody types already
    panel.current.querySelector("button, input, select").focus();
    const outside = (event) => !panel.current.parentElement.contains(event.target) && close();
    addEventListener("pointerdown", outside);
    return () => removeEventListener("pointerdown", outside);
  }, []);
  const mode = t.has(`mode_${route.mode}`) ? route.mode : "vector";
  const select = (key, options, say = (value) => value) => html`<label><span>${t(key)}</span>
    <select value=${route[key] || ""} onChange=${(event) => change(key)(event.currentTarget.value)}>
      <option value="">${t("any")}</option>
      ${options.map((value) => html`<option key=${value} value=${value}>${say(value)}</option>`)}
    </select></label>`;
  const field = (key, rest) => html`<${Field} value=${route[key] || ""} commit=${change(key)} ...${rest} />`;
  return html`<div ref=${panel} id="filters" class="panel" role="dialog" aria-label=${t("filters")} onKeyDown=${(event) => { if (event.key === "Escape") { event.stopPropagation(); close(); } }}>
    <fieldset><legend>${t("match_by")}</legend>
      <${Choice} label=${t("match_by")} value=${mode} set=${(value) => change("mode")(value === "vector" ? "" : value)}
        options=${["vector", "words", "hybrid"].map((key) => [key, t(`mode_${key}`)])} />
      <p class="hint">${t(`mode_${mode}_note`)}</p>
    </fieldset>
    <fieldset><legend>${t("sort_by")}</legend>
      <${Choice} label=${t("sort_by")} value=${route.sort || "score"} set=${(value) => change("sort")(value === "score" ? "" : value)}
        options=${["score", "date"].map((key) => [key, t(`sort_${key}`)])} />
    </fieldset>
    <div class="fields">
      <label class="leading"><span>${t("without")}</span>${field("without", { placeholder: t("without_hint"), maxlength: 1000 })}</label>
      <label><span>${t("after")}</span>${field("after", { type: "date" })}</label>
      <label><span>${t("before")}</span>${field("before", { type: "date" })}</label>
      <label class="wide"><span>${t("folder")}</span>${field("folder", { placeholder: t("any"), list: "folders", maxlength: 1000 })}</label>
      <datalist id="folders">${(stats?.folders || []).map((folder) => html`<option key=${folder} value=${folder} />`)}</datalist>
      ${stats && Object.keys(stats.cameras).length > 0 && select("camera", Object.keys(stats.cameras))}
      ${stats && Object.keys(stats.formats).length > 1 && select("format", Object.keys(stats.formats))}
      ${select("min_side", SIDES.map(String), (value) => t("pixels", { n: Number(value) }))}
    </div>
    <label class="switch"><input type="checkbox" role="switch" checked=${route.all === "1"} onChange=${(event) => change("all")(event.currentTarget.checked ? "1" : "")} />
      <span><b>${t("all")}</b><small>${t("all_note")}</small></span></label>
    <footer>
      <${Button} kind="plain" onClick=${() => go(pick(here(), ["q", "image"]))}>${t("filters_clear")}</${Button}>
      <${Button} kind="main" onClick=${close}>${t("filters_close")}</${Button}>
    </footer>
  </div>`;
}

function Chips() {
  const { t, route } = useApp();
  const chips = ["mode", "sort", "all", ...FILTERS].filter((key) => route[key]);
  if (!chips.length) return null;
  const say = (key) => {
    const value = route[key];
    return t.has(`chip_${key}_${value}`) ? t(`chip_${key}_${value}`) : t.has(`chip_${key}`) ? t(`chip_${key}`, { value }) : value;
  };
  return html`<ul class="chips">${chips.map((key) => html`<li key=${key} class="chip">${say(key)}
    <button type="button" aria-label=${t("remove", { what: say(key) })} onClick=${() => go({ ...here(), [key]: "" })}><${Icon} name="close" size="14" /></button></li>`)}</ul>`;
}

export function Results() {
  const { t, route, image, shown, say, stats, selection } = useApp();
  const asked = { ...pick(route, ASKED), like: route.like, image: image?.file };
  const key = JSON.stringify({ ...asked, image: image?.url });
  const size = innerWidth < 720 ? 16 : 30;
  const found = useHits(key, (page) => search({ ...asked, weight: image && route.q ? route.weight : undefined }, page), size);
  const { hits, loading, stale, more, error } = found;
  const browsing = !route.q && !image && !route.like;
  shown.current = hits;
  useEffect(() => {
    if (!loading && !error) say(hits.length ? count(t, hits, more) : t("none_filter"));
  }, [loading, hits.length, key]);
  const title = route.like ? t("results_like") : image ? t(route.q ? "results_both" : "results_image", { q: route.q }) : browsing ? t("all_pictures") : t("results_for", { q: route.q });
  return html`<section class="results" aria-labelledby="title">
    ${image && html`<${Dropped} image=${image} key=${image.url} />`}
    <header class="head">
      <h1 id="title">${title}</h1>
      ${hits.length > 0 && html`<span class="count">${count(t, hits, more)}${browsing && html`<span class="rest"> · ${t("all_newest")}</span>`}</span>`}
      <${Chips} />
      ${hits.length > 0 && !selection.active && html`<${Button} kind="plain end" onClick=${selection.start}>${t("select_some")}</${Button}>`}
    </header>
    <${Warnings} lines=${found.warnings} />
    ${error && !hits.length
      ? html`<${Failure} error=${error} again=${found.reload} />`
      : loading && !hits.length
        ? html`<${Skeleton} />`
        : hits.length
          ? html`<${Grid} hits=${hits} stale=${stale} told=${route.mode === "words" || route.mode === "hybrid"} label=${title} />`
          : html`<${Nothing} browsing=${browsing} empty=${stats?.pictures === 0} />`}
    ${more && !stale && html`<div class="turn">
      <${Sentinel} key=${hits.length} seen=${found.next} />
      ${error ? html`<${Failure} error=${error} again=${found.reload} />` : html`<${Button} kind="quiet" onClick=${found.next} disabled=${loading}>${loading ? t("loading") : t("more")}</${Button}>`}
    </div>`}
  </section>`;
}

const count = (t, hits, more) => (more ? t("found_more", { n: hits.length }) : t("found", { n: hits.length }));

/** No match is an answer: why, and what one can do, each a step that works. */
function Nothing({ browsing, empty }) {
  const { t, route, image, stats } = useApp();
  if (empty) return html`<${State} icon="picture" title=${t("empty_title")}><p>${t("empty_note")}</p><code class="command">tuwen index PICTURES --db ${stats.db}</code></${State}>`;
  const filtered = FILTERS.some((key) => route[key]);
  const bare = { q: route.q, image: route.image, like: route.like };
  const link = (to, words) => html`<li><a href=${address(to)} onClick=${follow(() => go(to))}>${words}</a></li>`;
  const title = browsing ? t("none_filter") : image || route.like ? t("none_picture") : t("none_title", { q: route.q });
  return html`<${State} icon="none" title=${title}>
    <p>${t("none_why")}</p>
    <ul class="ways">
      ${filtered && link({ ...bare, mode: route.mode }, t("none_filters"))}
      ${route.mode === "words" && link({ ...route, mode: "" }, t("none_mode"))}
      ${!browsing && !route.all && link({ ...route, all: "1" }, t("none_all"))}
    </ul>
    ${!browsing && !image && html`<p class="hint">${t("none_short")}</p>`}
  </${State}>`;
}
