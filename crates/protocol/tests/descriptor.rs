//! Compares the messages of `/proto` with the stock client's, number by number.

use std::collections::{BTreeSet, HashSet};

use inferd_protocol::pb::FILE_DESCRIPTOR_SET;
use prost::Message;
use prost_types::field_descriptor_proto::Label;
use prost_types::{DescriptorProto, EnumDescriptorProto, FileDescriptorSet};
use serde_json::{Value, json};

const DESCRIPTOR: &str = include_str!("../../../tests/wire/descriptor.json");

fn ours() -> FileDescriptorSet {
    FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).unwrap()
}

fn theirs() -> Value {
    serde_json::from_str(DESCRIPTOR).unwrap()
}

/// Our messages by full name.
fn messages() -> Vec<(String, DescriptorProto)> {
    fn walk(prefix: &str, message: DescriptorProto, all: &mut Vec<(String, DescriptorProto)>) {
        let name = format!("{prefix}.{}", message.name());
        message.nested_type.iter().for_each(|inner| walk(&name, inner.clone(), all));
        all.push((name, message));
    }
    let mut all = Vec::new();
    ours().file.into_iter().flat_map(|file| file.message_type).for_each(|m| walk(".inference", m, &mut all));
    all
}

#[test]
fn every_field_has_the_number_and_type_that_the_stock_client_uses() {
    let theirs = theirs();
    for (name, message) in messages() {
        let known = &theirs["messages"][&name];
        assert!(known.is_object(), "{name} is unknown to the stock client");
        for field in &message.field {
            let repeated = field.label() == Label::Repeated;
            let ours = json!([field.number(), field.r#type() as i32, field.type_name(), repeated]);
            assert_eq!(ours, known[field.name()], "{name}.{}", field.name());
        }
    }
}

#[test]
fn a_field_of_the_stock_client_is_there_or_reserved() {
    let theirs = theirs();
    for (name, message) in messages() {
        let present: HashSet<_> = message.field.iter().map(|field| field.name()).collect();
        for (field, facts) in theirs["messages"][&name].as_object().unwrap() {
            let number = facts[0].as_i64().unwrap() as i32;
            let reserved =
                message.reserved_range.iter().any(|range| (range.start()..range.end()).contains(&number))
                    && message.reserved_name.contains(field);
            assert!(present.contains(field.as_str()) != reserved, "{name}.{field} = {number}");
        }
    }
}

#[test]
fn every_enum_value_has_its_number() {
    let theirs = theirs();
    let check = |name: String, found: &EnumDescriptorProto| {
        let values: Value =
            found.value.iter().map(|value| (value.name().to_owned(), value.number())).collect();
        assert_eq!(values, theirs["enums"][&name], "{name}");
    };
    for (name, message) in messages() {
        message.enum_type.iter().for_each(|found| check(format!("{name}.{}", found.name()), found));
    }
    for file in ours().file {
        file.enum_type.iter().for_each(|found| check(format!(".inference.{}", found.name()), found));
    }
}

#[test]
fn every_call_of_the_stock_client_is_there() {
    let theirs = theirs();
    let mut names = BTreeSet::new();
    for service in ours().file.into_iter().flat_map(|file| file.service) {
        for method in &service.method {
            let name = format!("{}/{}", service.name(), method.name());
            let (client, server) = (method.client_streaming(), method.server_streaming());
            let ours = json!([method.input_type(), method.output_type(), client, server]);
            assert_eq!(ours, theirs["calls"][&name], "{name}");
            names.insert(name);
        }
    }
    assert!(names.iter().eq(theirs["calls"].as_object().unwrap().keys()), "{names:?}");
}
