// One picture: large, with its captions, its answers, its likes and what is known of it.
import { html, useEffect, useRef, useState } from "./vendor/preact.js";
import { bytes, copy, day, name, told, useApp, useHits, useLoad } from "./app.js";
import { correct, picture, search, thumbnail } from "./api.js";
import { Ask, Describe, Heat } from "./ask.js";
import { Icon } from "./icons.js";
import { Button, Choice, Dialog, Failure } from "./parts.js";
import { above, address, follow, go, leave } from "./route.js";

const LARGE = 1600;

export function Picture({ id }) {
  const app = useApp();
  const { t, shown, selection } = app;
  const { data, error, reload } = useLoad(id, (signal) => picture(id, signal));
  const [attention, look] = useState(null);
  useEffect(() => look(null), [id]);
  const hits = shown.current;
  const at = hits.findIndex((hit) => hit.id === id);
  const hit = hits[at];
  const row = data || hit;
  const chosen = hit || row; // the selection goes by files
  const turn = (by) => hits[at + by] && at >= 0 && above("picture", hits[at + by].id);
  const close = () => leave("picture");
  const keys = (event) => {
    if (event.target.closest("input, textarea, select, [role=radio]") || event.ctrlKey || event.metaKey || event.altKey) return;
    const act = {
      ArrowLeft: () => turn(-1),
      ArrowRight: () => turn(1),
      a: () => document.getElementById("question")?.focus(),
      e: () => document.querySelector(".captions .edit")?.click(),
      x: () => row && selection.toggle(chosen),
    }[event.key];
    if (!act) return;
    event.preventDefault();
    event.stopPropagation();
    act();
  };
  const file = row ? name(row.file) : "";
  return html`<${Dialog} label=${file || t("loading")} close=${close} kind="viewer" onKeyDown=${keys}>
    <div class="stage" style=${{ "--r": row ? ((row.width || 1) / (row.height || 1)).toFixed(4) : 1.5 }}>
      ${row && html`<div class="frame" style=${{ "--w": row.width || 800 }}>
        <img class="low" src=${thumbnail(row, 320)} alt="" />
        <img key=${id} src=${thumbnail(row, LARGE)} alt=${data?.captions[0]?.text || file} onLoad=${(event) => event.currentTarget.classList.add("there")} />
        ${attention && html`<${Heat} attention=${attention} width=${row.width || 1} height=${row.height || 1} />`}
      </div>`}
      <div class="over left"><${Button} icon="close" kind="glass" label=${t("close")} onClick=${close} /></div>
      <div class="over right">
        ${row && html`<button type="button" class=${`button glass only${selection.has(chosen) ? " on" : ""}`} role="checkbox" aria-checked=${selection.has(chosen)}
          aria-label=${t("select", { name: file })} title=${t("select", { name: file })} onClick=${() => selection.toggle(chosen)}><${Icon} name="check" /></button>
        <a class="button glass only" href=${data?.picture?.replace(/^\//, "")} target="_blank" rel="noopener" aria-label=${t("original")} title=${t("original")}><${Icon} name="open" /></a>`}
      </div>
      ${at > 0 && html`<div class="over back"><${Button} icon="left" kind="glass" label=${t("previous")} onClick=${() => turn(-1)} /></div>`}
      ${at >= 0 && at < hits.length - 1 && html`<div class="over forth"><${Button} icon="right" kind="glass" label=${t("next")} onClick=${() => turn(1)} /></div>`}
    </div>
    <div class="side" key=${id}>
      ${error
        ? html`<${Failure} error=${error.status === 404 ? new Error(t("error_missing")) : error} again=${reload} />`
        : !data
          ? html`<div class="bones" aria-hidden="true"><i></i><i></i><i></i><i></i></div>`
          : html`<header class="what"><h2>${file}</h2>
              <p>${[data.date ? day(t, data.date) : null, at >= 0 ? t("position", { n: at + 1, of: hits.length }) : null].filter(Boolean).join(" · ")}</p></header>
            <${Captions} row=${data} changed=${reload} />
            <${Ask} of=${{ id }} look=${look} looking=${attention} />
            <${Similar} id=${id} />
            <${Details} row=${data} />`}
    </div>
  </${Dialog}>`;
}

function Captions({ row, changed }) {
  const { t, toast } = useApp();
  const [editing, edit] = useState(null); // {text, lang, at}
  const [error, fail] = useState(null);
  const [busy, wait] = useState(false);
  const save = async () => {
    wait(true);
    fail(null);
    try {
      await correct(row.id, editing.text.trim(), editing.lang);
      edit((now) => (now === editing ? null : now)); // somebody may have typed on meanwhile
      toast(t("saved"), "good");
      changed();
    } catch (problem) {
      fail(problem);
    }
    wait(false);
  };
  const human = (caption) => caption.source === "human";
  const order = [...row.captions].sort((a, b) => human(b) - human(a));
  const source = (caption) => (human(caption) ? t("by_people") : t("by_model", { name: caption.source.replace(/^model:/, "") }));
  const form = editing && html`<form class="editor" onSubmit=${(event) => { event.preventDefault(); if (editing.text.trim() && !busy) save(); }}
      onKeyDown=${(event) => { if (event.key === "Escape") { event.preventDefault(); event.stopPropagation(); edit(null); } }}>
    <${Area} text=${editing.text} label=${t("caption_label")} lang=${editing.lang} set=${(text) => edit({ ...editing, text })} />
    ${error && html`<p class="problem" role="alert">${told(t, error)}</p>`}
    <div class="line"><${Choice} small label=${t("caption_lang")} value=${editing.lang} set=${(lang) => edit({ ...editing, lang })} options=${[["en", "EN"], ["zh", "中文"]]} />
      <span class="space"></span>
      <${Button} kind="plain" onClick=${() => edit(null)}>${t("cancel")}</${Button}>
      <button class="button main" disabled=${busy || !editing.text.trim()}><span>${t("save")}</span></button></div>
  </form>`;
  return html`<section class="part captions" aria-labelledby="captions-title">
    <h3 id="captions-title">${t("captions")}</h3>
    ${!order.length && !editing && html`<p class="hint">${t("captions_none")}</p>`}
    <ul>${order.map((caption, n) => editing?.at === n
      ? html`<li key="form">${form}</li>`
      : html`<li key=${caption.lang + caption.source + caption.text} class=${human(caption) ? "" : "made"}>
          <p lang=${caption.lang}>${caption.text}</p>
          <small><span>${source(caption)}</span>
          <button type="button" class="edit" onClick=${() => edit({ text: caption.text, lang: caption.lang === "zh" ? "zh" : "en", at: n })}><${Icon} name="pencil" size="15" />${t("correct")}</button></small>
        </li>`)}</ul>
    ${editing && editing.at === undefined ? form : !editing && html`<div class="line wrap">
      <${Describe} of=${{ id: row.id }} use=${(text, lang) => edit({ text, lang })} />
      <button type="button" class=${`button quiet${order.length ? "" : " edit"}`} onClick=${() => edit({ text: "", lang: t.lang })}><${Icon} name="pencil" /><span>${t("write")}</span></button>
    </div>`}
  </section>`;
}

/** A text field that is as high as its text, and has the focus when it comes. */
function Area({ text, set, label, lang }) {
  const ref = useRef();
  useEffect(() => {
    ref.current.focus();
    ref.current.setSelectionRange(text.length, text.length);
  }, []);
  return html`<textarea ref=${ref} lang=${lang} aria-label=${label} rows="2" maxlength="1000" value=${text} onInput=${(event) => set(event.currentTarget.value)}
    onKeyDown=${(event) => { if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); event.currentTarget.form.requestSubmit(); } }}></textarea>`;
}

function Similar({ id }) {
  const { t } = useApp();
  const { hits, loading, error } = useHits(id, (page) => search({ like: id }, page), 7);
  const like = { like: id };
  const near = hits.filter((hit) => hit.id !== id).slice(0, 6);
  return html`<section class="part" aria-labelledby="similar-title">
    <h3 id="similar-title">${t("similar")}<a href=${address(like)} onClick=${follow(() => go(like))}>${t("similar_all")}</a></h3>
    ${error
      ? html`<p class="problem">${told(t, error)}</p>`
      : !loading && !near.length
        ? html`<p class="hint">${t("similar_none")}</p>`
        : html`<ul class="six">${(loading ? Array.from({ length: 6 }, (_, n) => ({ n })) : near).map((hit) => html`<li key=${hit.id || hit.n}>
            ${hit.id && html`<a href=${address({ picture: hit.id })} aria-label=${t("open_picture", { name: name(hit.file) })} onClick=${follow(() => above("picture", hit.id))}>
              <img src=${thumbnail(hit, 256)} alt="" loading="lazy" onLoad=${(event) => event.currentTarget.classList.add("there")} /></a>`}</li>`)}</ul>`}
  </section>`;
}

function Details({ row }) {
  const app = useApp();
  const { t } = app;
  const place = row.latitude !== null && row.longitude !== null && `${Math.abs(row.latitude).toFixed(4)}° ${row.latitude < 0 ? "S" : "N"}, ${Math.abs(row.longitude).toFixed(4)}° ${row.longitude < 0 ? "W" : "E"}`;
  const when = row.date && new Intl.DateTimeFormat(t.lang, { dateStyle: "long", timeStyle: "short" });
  const date = row.date && !Number.isNaN(Date.parse(row.date)) ? when.format(new Date(row.date)) : row.date;
  const facts = [
    ["taken", date],
    ["camera", row.camera],
    ["place", place],
    ["dimensions", row.width && `${row.width} × ${row.height}${row.size ? ` · ${bytes(t, row.size)}` : ""}${row.format ? ` · ${row.format}` : ""}`],
  ].filter(([, value]) => value);
  return html`<section class="part" aria-labelledby="details-title">
    <h3 id="details-title">${t("details")}</h3>
    <dl>${facts.map(([key, value]) => html`<div key=${key}><dt>${t(key)}</dt><dd>${value}</dd></div>`)}
      <div><dt>${row.files.length > 1 ? t("copies", { n: row.files.length }) : t("file")}</dt>
        <dd class="paths">${row.files.map((file) => html`<span key=${file}>${file}</span>`)}
          <${Button} icon="copy" kind="plain" label=${t("copy_path")} onClick=${() => copy(app, row.files)} /></dd></div></dl>
  </section>`;
}
