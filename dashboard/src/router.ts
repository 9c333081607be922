// Where one is, in the part of the address behind #: so the page works under any prefix, and filters can be shared.
import { computed, signal } from "@preact/signals";

const hash = signal(location.hash);
addEventListener("hashchange", () => {
  hash.value = location.hash;
});

export interface Place {
  page: string;
  rest: string;
  query: URLSearchParams;
}

export const place = computed<Place>(() => {
  const [path = "", query = ""] = splitOnce(hash.value.replace(/^#\/?/, ""), "?");
  const [page = "", rest = ""] = splitOnce(path, "/");
  return { page: page || "now", rest: decode(rest), query: new URLSearchParams(query) };
});

export function href(page: string, query?: Query): string {
  const text = query ? asText(query) : "";
  return `#/${page}${text ? `?${text}` : ""}`;
}

export type Query = Record<string, string | number | readonly string[] | null | undefined>;

export function go(to: string): void {
  location.hash = to;
}

/** Change the query of this page without a new entry in the history. */
export function replaceQuery(query: Query): void {
  const text = asText(query);
  history.replaceState(null, "", `#/${place.value.page}${text ? `?${text}` : ""}`);
  hash.value = location.hash;
}

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
