// Who is asking, and what they may do.
import { computed, signal } from "@preact/signals";
import { get, isLockedOut } from "./api";
import type { Me } from "./model";

export const me = signal<Me | null>(null);
/** Until the server has said otherwise everything is offered; it refuses what the role may not do. */
export const mayOperate = computed(() => me.value?.role !== "reader");

export async function learnWhoIAm(): Promise<void> {
  try {
    me.value = await get("me");
  } catch {
    me.value = null; // the page's own questions tell what is wrong
  }
}

isLockedOut.subscribe((locked) => {
  if (!locked) void learnWhoIAm();
});
