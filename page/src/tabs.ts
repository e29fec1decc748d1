/** Which tabs of this page are open: each holds a lock of its own, which the browser releases even when the tab crashes. */

const PREFIX = "conure-tab-";
/** Milliseconds that a page which is being reloaded takes to release its lock. */
const PATIENCE = 2000;

/** The name of this tab, until it is reloaded. */
export const tab = crypto.getRandomValues(new Uint32Array(3)).join("-");

// Browsers have locks on https and localhost alone. Without them every other tab counts as closed.
const { locks } = navigator as { locks?: LockManager };

if (locks) void locks.request(PREFIX + tab, () => new Promise(() => undefined)).catch(() => undefined);

/** The other tabs that are open now. */
export async function openTabs(): Promise<Set<string>> {
  const { held = [] } = (await locks?.query().catch(() => undefined)) ?? {};
  const names = held.flatMap(({ name }) => (name?.startsWith(PREFIX) ? [name.slice(PREFIX.length)] : []));
  return new Set(names.filter((name) => name !== tab));
}

/** Waits a moment for that tab to close; whether it did. */
export async function hasClosed(other: string): Promise<boolean> {
  if (!locks || other === tab) return true;
  try {
    return await locks.request(PREFIX + other, { signal: AbortSignal.timeout(PATIENCE) }, () => true);
  } catch {
    return false;
  }
}
