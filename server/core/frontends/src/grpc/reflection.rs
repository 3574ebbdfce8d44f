//! Server reflection, v1 and v1alpha: the messages of both are the same on the wire.

use std::collections::HashMap;
use std::sync::OnceLock;

use bytes::Bytes;
use kingpole_values::{Code, Error};
use kingpole_wire::grpc::FILE_DESCRIPTOR_SET;
use kingpole_wire::grpc::proto::reflection as proto;
use prost::Message;
use prost_types::{DescriptorProto, FileDescriptorProto, FileDescriptorSet};
use proto::server_reflection_request::MessageRequest;
use proto::server_reflection_response::MessageResponse;

use super::messages::Messages;
use super::reply::{self, Reply};

/// Every schema, findable by file and by symbol.
#[derive(Default)]
struct Schemas {
    files: HashMap<String, (Bytes, Vec<String>)>,
    symbols: HashMap<String, String>,
    services: Vec<String>,
}

impl Schemas {
    fn shared() -> &'static Self {
        static SCHEMAS: OnceLock<Schemas> = OnceLock::new();
        SCHEMAS.get_or_init(|| {
            let set = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).unwrap_or_default();
            let mut schemas = Self::default();
            set.file.iter().for_each(|file| schemas.add(file));
            schemas.services.sort();
            schemas
        })
    }

    fn add(&mut self, file: &FileDescriptorProto) {
        let name = file.name().to_owned();
        let within = |parent: &str, name: &str| {
            if parent.is_empty() { name.to_owned() } else { format!("{parent}.{name}") }
        };
        for service in &file.service {
            let service_name = within(file.package(), service.name());
            for method in &service.method {
                self.symbols.insert(within(&service_name, method.name()), name.clone());
            }
            self.symbols.insert(service_name.clone(), name.clone());
            self.services.push(service_name);
        }
        for enumeration in &file.enum_type {
            self.symbols.insert(within(file.package(), enumeration.name()), name.clone());
        }
        let mut messages: Vec<(String, &DescriptorProto)> =
            file.message_type.iter().map(|message| (file.package().to_owned(), message)).collect();
        while let Some((parent, message)) = messages.pop() {
            let message_name = within(&parent, message.name());
            messages.extend(message.nested_type.iter().map(|nested| (message_name.clone(), nested)));
            for enumeration in &message.enum_type {
                self.symbols.insert(within(&message_name, enumeration.name()), name.clone());
            }
            self.symbols.insert(message_name, name.clone());
        }
        self.files.insert(name, (Bytes::from(file.encode_to_vec()), file.dependency.clone()));
    }

    /// A file and everything that it imports.
    fn with_imports(&self, name: &str) -> Option<Vec<Bytes>> {
        let mut names = vec![name];
        let mut found = Vec::new();
        let mut position = 0;
        while position < names.len() {
            let (file, imports) = self.files.get(names[position])?;
            found.push(file.clone());
            for import in imports {
                if !names.contains(&import.as_str()) {
                    names.push(import);
                }
            }
            position += 1;
        }
        Some(found)
    }

    fn answer(&self, request: &MessageRequest) -> MessageResponse {
        let (what, file) = match request {
            MessageRequest::ListServices(_) => {
                let service = |name: &String| proto::ServiceResponse { name: name.clone() };
                let service = self.services.iter().map(service).collect();
                return MessageResponse::ListServicesResponse(proto::ListServiceResponse { service });
            }
            MessageRequest::FileByFilename(name) => (name, Some(name)),
            MessageRequest::FileContainingSymbol(symbol) => (symbol, self.symbols.get(symbol)),
            MessageRequest::FileContainingExtension(extension) => (&extension.containing_type, None),
            MessageRequest::AllExtensionNumbersOfType(name) => (name, None),
        };
        match file.and_then(|file| self.with_imports(file)) {
            Some(file_descriptor_proto) => {
                MessageResponse::FileDescriptorResponse(proto::FileDescriptorResponse {
                    file_descriptor_proto,
                })
            }
            None => MessageResponse::ErrorResponse(proto::ErrorResponse {
                error_code: i32::from(Code::NotFound.number()),
                error_message: format!("'{what}' is not found"),
            }),
        }
    }
}

/// Answer questions one after another until the client has no more.
pub(crate) async fn serve(mut messages: Messages, reply: Reply) {
    let Some(mut stream) = reply.stream() else { return };
    loop {
        let message = tokio::select! {
            message = std::future::poll_fn(|cx| messages.poll_message(cx)) => message,
            () = std::future::poll_fn(|cx| stream.poll_gone(cx)) => return,
        };
        let decoded = match message {
            None => return stream.finish(None),
            Some(Err(refused)) => return stream.finish(Some(&refused.error)),
            Some(Ok(message)) => proto::ServerReflectionRequest::decode(message),
        };
        let Ok(request) = decoded else {
            return stream.finish(Some(&Error::invalid("ServerReflectionRequest is malformed")));
        };
        let answer = request.message_request.as_ref().map(|question| Schemas::shared().answer(question));
        let response = proto::ServerReflectionResponse {
            valid_host: request.host.clone(),
            original_request: Some(request),
            message_response: answer,
        };
        if stream.send(reply::frame(&response.encode_to_vec())).await.is_err() {
            return;
        }
    }
}
