/** What is measured: one request and its answer, by each contender. */
import http from "node:http";
import { fileURLToPath } from "node:url";

import * as grpc from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";

import { encodeRequest } from "../src/encode.js";
import { joinBuffers, MEDIA_TYPE } from "../src/frame.js";
import { connect } from "../src/node/index.js";
import { makeRequest } from "../src/request.js";
import { Tensor } from "../src/tensor.js";

const MODEL = "echo-fp32";
const PROTO = fileURLToPath(new URL("../../../../protocol/schema/open_inference.proto", import.meta.url));
const UNLIMITED = { "grpc.max_receive_message_length": -1, "grpc.max_send_message_length": -1 };

/** Asks once with these values, and returns the number of values that came back. */
export type Ask = () => Promise<number>;

/** One way to ask. */
export interface Contender {
  readonly name: string;
  prepare(values: Float32Array): Ask;
  close(): void;
}

/** This client. */
export function kingpole(url: string): Contender {
  const client = connect(url);
  return {
    name: "kingpole",
    prepare: (values) => async () => {
      const x = new Tensor("FP32", [1, values.length], values);
      const response = await client.infer(MODEL, { x });
      return response.output("x", "FP32").data.length;
    },
    close: () => {
      client.close();
    },
  };
}

interface InferResponse {
  raw_output_contents: Buffer[];
}
type ModelInfer = (
  request: unknown,
  callback: (error: Error | null, response: InferResponse | undefined) => void,
) => void;

/** The plain stubs of Open Inference, as `@grpc/proto-loader` makes them. */
export function stubs(authority: string): Contender {
  const definition = grpc.loadPackageDefinition(loadSync(PROTO, { keepCase: true }));
  const { GRPCInferenceService: Service } = definition["inference"] as unknown as {
    GRPCInferenceService: grpc.ServiceClientConstructor;
  };
  const client = new Service(authority, grpc.credentials.createInsecure(), UNLIMITED);
  const modelInfer = (client["ModelInfer"] as ModelInfer).bind(client);
  return {
    name: "stubs",
    prepare: (values) => () =>
      new Promise((resolve, reject) => {
        const request = {
          model_name: MODEL,
          inputs: [{ name: "x", datatype: "FP32", shape: [1, values.length] }],
          raw_input_contents: [Buffer.from(values.buffer, values.byteOffset, values.byteLength)],
        };
        modelInfer(request, (error, response) => {
          if (error !== null || response === undefined) {
            reject(error ?? new Error("no response"));
            return;
          }
          const [raw = Buffer.alloc(0)] = response.raw_output_contents;
          // What a caller does to have numbers.
          const copy = raw.byteOffset % 4 === 0 ? raw : Buffer.from(raw);
          resolve(new Float32Array(copy.buffer, copy.byteOffset, copy.length / 4).length);
        });
      }),
    close: () => {
      client.close();
    },
  };
}

function frameOf(values: Float32Array): Buffer {
  const inputs = { x: new Tensor("FP32", [1, values.length], values) };
  return Buffer.from(joinBuffers(encodeRequest(makeRequest(MODEL, inputs, {}, undefined), 1)).buffer);
}

/** The same bytes there and back over Node's own HTTP. */
export function httpFloor(authority: string): Contender {
  const agent = new http.Agent({ keepAlive: true });
  const [host, port] = authority.split(":");
  return {
    name: "floor",
    prepare: (values) => {
      const body = frameOf(values);
      const headers = { "content-type": MEDIA_TYPE, "content-length": body.length };
      return () =>
        new Promise((resolve, reject) => {
          const request = http.request(
            { host, port, agent, method: "POST", path: "/v1/infer", headers },
            (answer) => {
              let nbytes = 0;
              answer.on("data", (piece: Buffer) => (nbytes += piece.length));
              answer.on("end", () => {
                resolve(nbytes >= values.byteLength ? values.length : 0);
              });
            },
          );
          request.on("error", reject);
          request.end(body);
        });
    },
    close: () => {
      agent.destroy();
    },
  };
}

/** The same bytes there and back in a bare gRPC call. */
export function grpcFloor(authority: string): Contender {
  const client = new grpc.Client(authority, grpc.credentials.createInsecure(), UNLIMITED);
  const same = (bytes: Buffer) => bytes;
  return {
    name: "floor",
    prepare: (values) => {
      const message = frameOf(values);
      return () =>
        new Promise((resolve, reject) => {
          client.makeUnaryRequest("/kingpole.v1.Inference/Infer", same, same, message, (error, answer) => {
            if (error !== null) reject(error);
            else resolve((answer?.length ?? 0) >= values.byteLength ? values.length : 0);
          });
        });
    },
    close: () => {
      client.close();
    },
  };
}
