// Where one is: in the path below <base>, so the page works wherever it is mounted, and filters can be shared.
import { computed, signal } from "@preact/signals";

const root = new URL(document.baseURI).pathname;
const here = (): string => location.pathname + location.search;
const address = signal(here());
addEventListener("popstate", () => {
  address.value = here();
});

export interface Place {
  page: string;
  rest: string;
  query: URLSearchParams;
}

export const place = computed<Place>(() => {
  const [path, query] = splitOnce(address.value, "?");
  const [page, rest] = splitOnce(path.startsWith(root) ? path.slice(root.length) : path.replace(/^\//, ""), "/");
  return { page: page || "now", rest: decode(rest), query: new URLSearchParams(query) };
});

export function href(page: string, query?: Query): string {
  const text = query ? asText(query) : "";
  return `${root}${page === "now" ? "" : page}${text ? `?${text}` : ""}`;
}

export type Query = Record<string, string | number | readonly string[] | null | undefined>;

export function go(to: string): void {
  history.pushState(null, "", to);
  address.value = here();
}

/** Change the query of this page without a new entry in the history. */
export function replaceQuery(query: Query): void {
  const text = asText(query);
  history.replaceState(null, "", location.pathname + (text ? `?${text}` : ""));
  address.value = here();
}

/** Follow links to our own pages without loading the document anew; all others are the browser's. */
addEventListener("click", (event) => {
  const link = (event.target as Element | null)?.closest?.("a[href]") as HTMLAnchorElement | null;
  if (!link || event.defaultPrevented || event.button || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
  if (link.target || link.origin !== location.origin || !link.pathname.startsWith(root)) return;
  event.preventDefault();
  go(link.href);
});

export function asText(query: Query): string {
  const params = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    if (value == null || value === "") continue;
    for (const one of Array.isArray(value) ? value : [value]) params.append(name, String(one));
  }
  return params.toString();
}

function splitOnce(text: string, at: string): [string, string] {
  const index = text.indexOf(at);
  return index < 0 ? [text, ""] : [text.slice(0, index), text.slice(index + 1)];
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}
