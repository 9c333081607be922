// The frame: where one can go, whether the server answers, and the page itself.
import "./app.css";
import "uplot/dist/uPlot.min.css";
import { signal } from "@preact/signals";
import { Component, type ComponentChildren, render } from "preact";
import { useEffect, useRef } from "preact/hooks";
import { disconnectedSince, isLockedOut, post } from "./api";
import { Dialogs, Told, ask } from "./dialog";
import { duration } from "./format";
import { isVisible, now } from "./live";
import { type Place, go, href, place } from "./router";
import { learnWhoIAm, me } from "./session";
import { type Theme, choose, theme } from "./theme";
import { Login } from "./pages/login";
import { Now } from "./pages/now";
import { Health, Operations, Schedules, Workers } from "./pages/others";
import { RunPage } from "./pages/run";
import { Runs } from "./pages/runs";
import { Types } from "./pages/types";

const PAGES = [
  ["now", "Now", "n"],
  ["runs", "Runs", "r"],
  ["types", "Types", "t"],
  ["workers", "Workers", "w"],
  ["schedules", "Schedules", "s"],
  ["operations", "Operations", "o"],
  ["health", "Health", "h"],
] as const;
const ON_PHONES = 4; // so many stand in the bar; the rest behind "more"

const isMenuOpen = signal(false);

function PageAt({ at }: { at: Place }) {
  switch (at.page) {
    case "now":
      return <Now />;
    case "runs":
      return at.rest ? <RunPage key={at.rest} id={at.rest} /> : <Runs />;
    case "types":
      return <Types />;
    case "workers":
      return <Workers />;
    case "schedules":
      return <Schedules />;
    case "operations":
      return <Operations key={at.rest} id={at.rest} />;
    case "health":
      return <Health />;
    default:
      return (
        <div class="empty">
          <strong>There is no such page.</strong>
          <p>
            <a href={href("now")}>Now</a> is where to begin.
          </p>
        </div>
      );
  }
}

function App() {
  const at = place.value;
  const main = useRef<HTMLElement>(null);
  const where = `${at.page}/${at.rest}`;
  const first = useRef(where);
  useEffect(() => {
    const name = PAGES.find(([page]) => page === at.page)?.[1] ?? "";
    document.title = `${at.rest ? `${at.rest.slice(-8)} · ` : ""}${name} · simple-workflow`;
    isMenuOpen.value = false;
    if (first.current === where) return;
    first.current = where;
    scrollTo(0, 0);
    main.current?.querySelector("h1")?.focus({ preventScroll: true });
  }, [where]);

  if (isLockedOut.value) return <Login />;
  return (
    <div class="frame">
      <a
        class="skip"
        href="#main"
        onClick={(event) => {
          event.preventDefault();
          main.current?.querySelector("h1")?.focus();
        }}
      >
        to the page
      </a>
      <div class="side">
        <a class="brand" href={href("now")}>
          <img src="icon.svg" alt="" width="24" height="24" /> simple-workflow
        </a>
        <nav aria-label="pages" class={isMenuOpen.value ? "is-open" : ""}>
          {PAGES.map(([page, name, letter], index) => (
            <a
              key={page}
              href={href(page)}
              class={index >= ON_PHONES ? "is-more" : ""}
              aria-current={page === at.page ? "page" : undefined}
              title={`g then ${letter}`}
            >
              <Glyph of={page} />
              {name}
            </a>
          ))}
          <button
            type="button"
            class="menu"
            aria-expanded={isMenuOpen.value}
            onClick={() => (isMenuOpen.value = !isMenuOpen.value)}
          >
            <Glyph of="more" />
            More
          </button>
        </nav>
        <Foot />
      </div>
      <main id="main" ref={main}>
        <Disconnected />
        <Fence key={where}>
          <PageAt at={at} />
        </Fence>
      </main>
      <Dialogs />
      <Told />
    </div>
  );
}

const GLYPHS: Record<string, string> = {
  now: "M2 9h3l2-5 3 9 2-6 1 2h3",
  runs: "M3 4h12M3 9h12M3 14h8",
  types: "M3 3h5v5H3zM10 3h5v5h-5zM3 10h5v5H3zM10 10h5v5h-5z",
  workers: "M3 3h12v5H3zM3 10h12v5H3zM6 5.5h.1M6 12.5h.1",
  schedules: "M9 2.5a6.5 6.5 0 1 0 0 13 6.5 6.5 0 0 0 0-13M9 5.5V9l2.5 2",
  operations: "M3 5h8M3 9h5M3 13h6M11 11l2 2 3-4",
  health: "M9 15S2.5 11 2.5 6.7A3.4 3.4 0 0 1 9 5.3a3.4 3.4 0 0 1 6.5 1.4C15.5 11 9 15 9 15",
  more: "M4 9h.1M9 9h.1M14 9h.1",
};

const Glyph = ({ of }: { of: string }) => (
  <svg class="glyph" viewBox="0 0 18 18" width="18" height="18" aria-hidden="true">
    <path d={GLYPHS[of] ?? ""} />
  </svg>
);

const NEXT_THEME: Record<Theme, Theme> = { system: "light", light: "dark", dark: "system" };

function Foot() {
  const who = me.value;
  return (
    <div class="foot">
      <LiveMark />
      {who?.name && (
        <div class="who" title={`role ${who.role}`}>
          <bdi>{who.name}</bdi> <span class="soft">{who.role}</span>
          <button type="button" class="quiet small" onClick={() => void leave()}>
            log out
          </button>
        </div>
      )}
      <div class="foot-row">
        <button type="button" class="quiet small" onClick={() => choose(NEXT_THEME[theme.value])} aria-label={`colours: ${theme.value}; change`}>
          {theme.value === "system" ? "◐ system" : theme.value === "light" ? "○ light" : "● dark"}
        </button>
        <button type="button" class="quiet small keys" onClick={showKeys}>
          keys <kbd>?</kbd>
        </button>
      </div>
      {who?.version && <span class="soft version">{who.version}</span>}
    </div>
  );
}

async function leave(): Promise<void> {
  await post("logout").catch(() => {});
  me.value = null;
  isLockedOut.value = true;
}

function LiveMark() {
  const isAway = disconnectedSince.value !== null;
  const word = isAway ? "disconnected" : isVisible.value ? "live" : "paused";
  return (
    <span class={`live is-${word}`} title={isAway ? "the server does not answer; it is asked again" : "this page moves by itself while it is seen"}>
      <i aria-hidden="true" /> {word}
    </span>
  );
}

function Disconnected() {
  const since = disconnectedSince.value;
  if (since === null) return null;
  void now.value;
  return (
    <div class="disconnected" role="alert">
      <strong>The server does not answer</strong> for {duration(Math.max(1, Math.round((Date.now() - since) / 1000)))}. What you see is what it said
      last; it is asked again and again. Workers go on without it.
    </div>
  );
}

/** A page that breaks says so, and the others stay. */
class Fence extends Component<{ children: ComponentChildren }, { error: Error | null }> {
  state = { error: null };
  static getDerivedStateFromError(error: Error) {
    return { error };
  }
  render() {
    const { error } = this.state as { error: Error | null };
    if (!error) return this.props.children;
    return (
      <div class="problem" role="alert">
        <div>
          <strong>This page broke: {error.message}</strong>
          <p>That is our mistake. Reload it; the others go on.</p>
        </div>
      </div>
    );
  }
}

// ── the keyboard ───────────────────────────────────────────────────────────────────────────────────

const KEYS = [
  ["g then n r t w s o h", "go to Now, Runs, Types, Workers, Schedules, Operations, Health"],
  ["j  k", "next, previous row"],
  ["Enter", "open the row"],
  ["x", "select the row"],
  ["/", "filter by type"],
  ["c  r", "on a run: cancel it, reopen it"],
  ["Esc", "close what is open"],
] as const;

function showKeys(): void {
  ask({
    title: "Keys",
    fields: (
      <dl class="keys-list">
        {KEYS.map(([key, does]) => (
          <div key={key}>
            <dt>
              <kbd>{key}</kbd>
            </dt>
            <dd>{does}</dd>
          </div>
        ))}
      </dl>
    ),
    does: "Good",
    act: async () => null,
  });
}

let wentAt = 0;
addEventListener("keydown", (event) => {
  const on = event.target as HTMLElement;
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]") || isLockedOut.value) return;
  const isTyping = on.matches?.("input:not([type=checkbox]), textarea, select");
  if (isTyping) {
    if (event.key === "Escape") on.blur();
    return;
  }
  const page = Date.now() - wentAt < 1500 ? PAGES.find(([, , letter]) => letter === event.key) : undefined;
  wentAt = 0;
  if (page) go(href(page[0]));
  else if (event.key === "g") wentAt = Date.now();
  else if (event.key === "?") showKeys();
  else if (event.key === "j" || event.key === "k") moveRow(event.key === "j" ? 1 : -1);
  else if (event.key === "x") on.closest("tr")?.querySelector<HTMLInputElement>("input[type=checkbox]")?.click();
  else {
    const named = document.querySelector<HTMLElement>(`[data-hotkey="${CSS.escape(event.key)}"]`);
    if (!named) return;
    if (named instanceof HTMLInputElement) named.focus();
    else named.click();
  }
  event.preventDefault();
});

function moveRow(by: number): void {
  const links = [...document.querySelectorAll<HTMLElement>("main .row-link")];
  const row = document.activeElement?.closest("tr, article");
  const at = links.findIndex((link) => link === document.activeElement || (row && row.contains(link)));
  links[at < 0 ? (by > 0 ? 0 : links.length - 1) : Math.min(links.length - 1, Math.max(0, at + by))]?.focus();
}

function begin(): void {
  const root = document.createElement("div");
  document.body.append(root);
  void learnWhoIAm();
  render(<App />, root);
}

if (document.body) begin();
else addEventListener("DOMContentLoaded", begin);
