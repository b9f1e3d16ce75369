// gRPC's interop test service on grpc-js: `node server.js PROTO_DIR [CERT KEY]`.
// Prints one JSON line, {"grpc": "HOST:PORT"}, once it serves, and ends with its standard input.
'use strict';

const fs = require('node:fs');
const grpc = require('@grpc/grpc-js');
const loader = require('@grpc/proto-loader');

const INITIAL = 'x-grpc-test-echo-initial';
const TRAILING = 'x-grpc-test-echo-trailing-bin';

const sizes = (request) => request.response_parameters.map((parameters) => parameters.size);
const output = (size) => ({ payload: { body: Buffer.alloc(size) } });

/** Sends the initial metadata that is to be echoed; returns the trailing one. */
function echoMetadata(call) {
  const initial = new grpc.Metadata();
  const trailing = new grpc.Metadata();
  for (const value of call.metadata.get(INITIAL)) initial.add(INITIAL, value);
  for (const value of call.metadata.get(TRAILING)) trailing.add(TRAILING, value);
  call.sendMetadata(initial);
  return trailing;
}

function statusOf(request, trailing) {
  const wanted = request.response_status;
  if (!wanted || !wanted.code) return null;
  return { code: wanted.code, details: wanted.message, metadata: trailing };
}

const service = {
  emptyCall(call, done) {
    done(null, {}, echoMetadata(call));
  },
  unaryCall(call, done) {
    const trailing = echoMetadata(call);
    done(statusOf(call.request, trailing), output(call.request.response_size), trailing);
  },
  streamingOutputCall(call) {
    sizes(call.request).forEach((size) => call.write(output(size)));
    call.end();
  },
  streamingInputCall(call, done) {
    let total = 0;
    call.on('data', (request) => { total += request.payload.body.length; });
    call.on('end', () => done(null, { aggregated_payload_size: total }));
  },
  fullDuplexCall(call) {
    const trailing = echoMetadata(call);
    call.on('data', (request) => {
      const status = statusOf(request, trailing);
      if (status) call.emit('error', status);
      else sizes(request).forEach((size) => call.write(output(size)));
    });
    call.on('end', () => call.end(trailing));
  },
  halfDuplexCall(call) {
    const wanted = [];
    call.on('data', (request) => wanted.push(...sizes(request)));
    call.on('end', () => {
      wanted.forEach((size) => call.write(output(size)));
      call.end();
    });
  },
};

const [protoDir, cert, key] = process.argv.slice(2);
const definition = loader.loadSync('grpc/testing/test.proto', { includeDirs: [protoDir], keepCase: true, defaults: true });
const server = new grpc.Server({ 'grpc.max_receive_message_length': 16 << 20 });
server.addService(grpc.loadPackageDefinition(definition).grpc.testing.TestService.service, service);
const credentials = cert
  ? grpc.ServerCredentials.createSsl(null, [{ cert_chain: fs.readFileSync(cert), private_key: fs.readFileSync(key) }])
  : grpc.ServerCredentials.createInsecure();
server.bindAsync('127.0.0.1:0', credentials, (error, port) => {
  if (error) throw error;
  console.log(JSON.stringify({ grpc: `127.0.0.1:${port}` }));
});
process.stdin.resume();
process.stdin.on('end', () => process.exit(0));
