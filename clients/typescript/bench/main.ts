/** The benchmark: protocol/conformance/README.md. */
import assert from "node:assert/strict";

import { type Ask, type Contender, grpcFloor, httpFloor, kingpole, stubs } from "./contenders.js";

/** Values of a request, and how many requests each contender sends. */
const SIZES = [
  [4, 2000],
  [1000, 2000],
  [250_000, 200],
  [2_500_000, 40],
] as const;
/** Contenders take turns in so many blocks, so that a noisy machine hurts all alike. */
const BLOCKS = 10;

interface Measured {
  readonly ask: Ask;
  readonly latenciesUs: number[];
  cpuUs: number;
}

async function block(measured: Measured, requests: number, values: number): Promise<void> {
  const before = process.cpuUsage();
  for (let index = 0; index < requests; index++) {
    const started = performance.now();
    assert.equal(await measured.ask(), values);
    measured.latenciesUs.push((performance.now() - started) * 1000);
  }
  const { user, system } = process.cpuUsage(before);
  measured.cpuUs += user + system;
}

function quantile(sorted: readonly number[], share: number): number {
  return Math.round(sorted[Math.min(Math.floor(sorted.length * share), sorted.length - 1)] ?? 0);
}

async function measure(contenders: readonly Contender[], values: number, requests: number): Promise<void> {
  const data = new Float32Array(values).map((_, index) => index);
  const all = contenders.map((contender): readonly [Contender, Measured] => {
    return [contender, { ask: contender.prepare(data), latenciesUs: [], cpuUs: 0 }];
  });
  const perBlock = Math.ceil(requests / BLOCKS);
  for (const [, measured] of all) {
    await block(measured, perBlock, values);
    measured.cpuUs = 0;
    measured.latenciesUs.length = 0;
  }
  for (let turn = 0; turn < BLOCKS; turn++) {
    for (const [, measured] of all) {
      // What one contender leaves behind is not the next one's to clear away.
      globalThis.gc?.();
      await block(measured, perBlock, values);
    }
  }
  for (const [{ name }, { cpuUs, latenciesUs }] of all) {
    const sorted = latenciesUs.sort((a, b) => a - b);
    const line = {
      contender: name,
      bytes: 4 * values,
      requests: sorted.length,
      cpu_us: Number((cpuUs / sorted.length).toFixed(1)),
      p50_us: quantile(sorted, 0.5),
      p99_us: quantile(sorted, 0.99),
    };
    console.log(JSON.stringify(line));
  }
}

const url = process.argv[2] ?? "http://localhost:8000";
const authority = new URL(url).host || url.replace(/^\w+:\/\//, "");
const floor = url.startsWith("grpc") ? grpcFloor(authority) : httpFloor(authority);
const contenders = [kingpole(url), stubs(authority), floor];
for (const [values, requests] of SIZES) await measure(contenders, values, requests);
for (const contender of contenders) contender.close();
