// Light or dark: the system's, unless somebody chose.
import { computed, signal } from "@preact/signals";

export type Theme = "system" | "light" | "dark";
const KEY = "simpleworkflow.theme";
const prefersDark = matchMedia("(prefers-color-scheme: dark)");
const isSystemDark = signal(prefersDark.matches);
prefersDark.addEventListener("change", (event) => (isSystemDark.value = event.matches));

export const theme = signal<Theme>(remembered());
export const isDark = computed(() => (theme.value === "system" ? isSystemDark.value : theme.value === "dark"));
isDark.subscribe((dark) => {
  document.documentElement.dataset.theme = dark ? "dark" : "light";
});

export function choose(chosen: Theme): void {
  theme.value = chosen;
  try {
    localStorage.setItem(KEY, chosen);
  } catch {
    // Storage may be forbidden; the choice then lasts as long as the page.
  }
}

function remembered(): Theme {
  try {
    const found = localStorage.getItem(KEY);
    return found === "light" || found === "dark" ? found : "system";
  } catch {
    return "system";
  }
}
