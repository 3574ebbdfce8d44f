// Package kingpole is the thin Go client of the Kingpole model server.
//
// A [Client] asks a server for inference: [Client.Infer] waits for one response, [Client.InferMany] keeps many requests in
// flight, [Client.Stream] gives the responses of models that make several. A [Request] names a model and carries [Tensor]
// values, which leave from where they are; a [Response] carries tensors that are views of the received bytes. Whatever goes
// wrong is an [*Error] with a [Code].
//
//	client, err := kingpole.Connect("http://localhost:8000")
//	...
//	defer client.Close()
//	response, err := client.Infer(ctx, &kingpole.Request{
//		Model:  "digits",
//		Inputs: []kingpole.Tensor{kingpole.NewTensor("image", pixels, 1, 28, 28)},
//	})
//	if errors.Is(err, kingpole.NotFound) { ... }
//	scores, err := kingpole.ValuesOf[float32](response, "scores")
//
// The same calls travel as frames over HTTP, gRPC, TCP and Unix sockets, and as Open Inference over HTTP to servers that know
// no frames. README.md says which URL means which.
package kingpole
