// Everything that the thin client offers but gRPC, which is a component of its own: <kingpole/grpc.hpp>.
#pragma once

#include <kingpole/client.hpp>
#include <kingpole/datatype.hpp>
#include <kingpole/error.hpp>
#include <kingpole/request.hpp>
#include <kingpole/response.hpp>
#include <kingpole/result.hpp>
#include <kingpole/tensor.hpp>
