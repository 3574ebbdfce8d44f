//! Every decoder gives a value or an error of the caller's, nothing else, whatever the bytes.

#[path = "../src/sample.rs"]
mod sample;

use bytes::Bytes;
use kingpole_values::{Code, Datatype, Error, InferResponse, Shape};
use kingpole_wire::frame::FrameReader;
use kingpole_wire::migration::{self, DeclaredInput, tensorflow};
use kingpole_wire::{frame, graphpipe, grpc, rest};
use proptest::prelude::*;

const FAULTS: [Code; 3] = [Code::InvalidArgument, Code::ResourceExhausted, Code::Unimplemented];

fn check<T>(result: Result<T, Error>) {
    if let Err(error) = result {
        assert!(FAULTS.contains(&error.code), "{error}");
        assert!(!error.message.is_empty());
    }
}

fn decode_with_all(bytes: &Bytes, header_length: Option<usize>) {
    check(frame::decode(bytes.clone()));
    check(grpc::decode_infer_request(bytes.clone()));
    check(grpc::decode_infer_response(bytes.clone()));
    check(rest::decode_infer_request(bytes.clone(), header_length));
    check(rest::decode_infer_response(bytes.clone(), header_length));
    check(graphpipe::decode_request(bytes.clone()));
    check(graphpipe::decode_response(bytes.clone()));
    check(graphpipe::decode_metadata_response(bytes.clone()));
    let mut reader = FrameReader::new(1 << 20);
    reader.push(bytes);
    while let Ok(Some(_)) = reader.next_frame() {}
    check(tensorflow::decode_predict_request(bytes.clone()));
    for (names, datatype) in [(&["x"][..], Datatype::Fp32), (&["a", "b"], Datatype::Bytes)] {
        let declared = declared(names, datatype);
        check(migration::decode_predict(bytes.clone(), &declared));
        check(migration::decode_examples(bytes.clone(), &declared));
        check(migration::decode_invocation(bytes.clone(), &declared));
        check(migration::decode_npy(bytes.clone(), &declared));
        check(migration::decode_csv(bytes, header_length.map(|length| length > 200), &declared));
    }
}

fn declared(names: &[&'static str], datatype: Datatype) -> Vec<DeclaredInput> {
    let input = |name: &&'static str| DeclaredInput {
        name: (*name).into(),
        datatype,
        shape: Shape::new(&[-1, -1]),
        optional: false,
    };
    names.iter().map(input).collect()
}

/// Good bodies of other servers' clients.
const FOREIGN: [&str; 7] = [
    r#"{"instances":[[1,2.5],[-3,4e2]],"signature_name":"s"}"#,
    r#"{"instances":[{"a":1,"b":["p\n"]},{"b":[{"b64":"/w=="}],"a":true}]}"#,
    r#"{"inputs":{"a":[["u"],[{"b64":"YQ"}]],"b":[1,2]}}"#,
    r#"{"dataframe_split":{"columns":["a",7],"index":[0],"data":[[1,"x"],[3,false]]},"params":{"t":1}}"#,
    r#"{"dataframe_records":[{"a":1,"b":[2]},{"b":[4],"a":3}]}"#,
    r#"{"examples":[{"a":[1],"b":"u"},{"a":[2],"b":"v"}]}"#,
    "a,b\n1,\"2\"\n3.5,true\n",
];

/// Good messages of every protocol, with the length of their JSON.
fn messages() -> Vec<(Bytes, Option<usize>)> {
    let mut messages = Vec::new();
    for datatype in [Datatype::Fp32, Datatype::Bytes, Datatype::Int16, Datatype::Bool] {
        let tensor = sample::tensor(datatype, &[2, 3]);
        let (request, response) = (sample::request(tensor.clone()), sample::response(tensor.clone()));
        messages.push((frame::encode_request(&request, &[], 1).into_bytes(), None));
        messages.push((frame::encode_response(&response, &[], 1).into_bytes(), None));
        for flag in [false, true] {
            messages.push((grpc::encode_infer_request(&request, flag).into_bytes(), None));
            messages.push((grpc::encode_infer_response(&response, flag).into_bytes(), None));
            let body = rest::encode_infer_request(&request, flag).unwrap();
            messages.push((body.body.into_bytes(), body.header_length));
        }
        let output = InferResponse { outputs: vec![tensor.clone()], ..InferResponse::default() };
        messages.extend(migration::encode_npy(&output).map(|array| (array.into_bytes(), None)));
        // An answer's outputs have the fields of a request's inputs, but for their number in the message.
        let mut predict =
            tensorflow::encode_predict_response_message(&output, "s").into_bytes().slice(5..).to_vec();
        predict[0] = 2 << 3 | 2;
        messages.push((predict.into(), None));
        let answer = InferResponse { outputs: vec![tensor], ..InferResponse::default() };
        messages.push((graphpipe::encode_request(&request, "c").unwrap().into_bytes(), None));
        messages.push((graphpipe::encode_infer_response(&answer).unwrap().into_bytes(), None));
    }
    messages.extend(FOREIGN.map(|text| (text.into(), None)));
    messages
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes_are_a_value_or_an_error(
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        header_length in prop::option::of(0usize..400),
    ) {
        decode_with_all(&bytes.into(), header_length);
    }

    #[test]
    fn damaged_messages_are_a_value_or_an_error(
        index in any::<prop::sample::Index>(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let messages = messages();
        let (bytes, header_length) = index.get(&messages);
        let mut bytes = bytes.to_vec();
        for (at, value) in damage {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        decode_with_all(&bytes.into(), *header_length);
    }

    #[test]
    fn floats_survive_json(values in prop::collection::vec(any::<f32>(), 0..50)) {
        let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let mut tensor = sample::tensor(Datatype::Fp32, &[0]);
        tensor.shape = [i64::try_from(values.len()).unwrap()].into_iter().collect();
        tensor.data = data.into();
        let response = sample::response(tensor);
        match rest::encode_infer_response(&response, &rest::RestReply::default()) {
            Ok(body) => {
                let decoded = rest::decode_infer_response(body.body.into_bytes(), body.header_length).unwrap();
                prop_assert_eq!(decoded, response);
            }
            Err(error) => prop_assert!(values.iter().any(|value| !value.is_finite()), "{}", error),
        }
    }

    #[test]
    fn byte_strings_survive_every_protocol(elements in prop::collection::vec(".{0,20}", 0..10)) {
        let mut data = Vec::new();
        for element in &elements {
            kingpole_values::write_byte_string(&mut data, element.as_bytes());
        }
        let mut tensor = sample::tensor(Datatype::Bytes, &[0]);
        tensor.shape = [i64::try_from(elements.len()).unwrap()].into_iter().collect();
        tensor.data = data.into();
        let request = sample::request(tensor.clone());
        for flag in [false, true] {
            let decoded = grpc::decode_infer_request(grpc::encode_infer_request(&request, flag).into_bytes()).unwrap();
            prop_assert_eq!(&decoded.request, &request);
            let body = rest::encode_infer_request(&request, flag).unwrap();
            let decoded = rest::decode_infer_request(body.body.into_bytes(), body.header_length).unwrap();
            prop_assert_eq!(&decoded.request.inputs[0], &tensor);
        }
        let body = graphpipe::encode_request(&request, "").unwrap().into_bytes();
        let graphpipe::GraphpipeRequest::Infer { request: decoded, .. } = graphpipe::decode_request(body).unwrap()
        else {
            panic!("an inference")
        };
        prop_assert_eq!(&decoded.inputs[0], &tensor);
    }
}
