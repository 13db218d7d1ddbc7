//! The gRPC services, server and client: their protos, and the code made from them.

mod status;

pub use status::{DOMAIN, code_of, refusal};

/// `mom.v1`: topics and queues.
#[expect(missing_docs, clippy::allow_attributes, clippy::too_many_lines, reason = "generated")]
pub mod mom {
    tonic::include_proto!("mom.v1");
}

/// The older system's services, which have no package.
#[expect(missing_docs, clippy::allow_attributes, clippy::too_many_lines, reason = "generated")]
pub mod chasqui {
    tonic::include_proto!("chasqui");
}

/// The services' descriptions, for reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = tonic::include_file_descriptor_set!("descriptors");

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use prost_types::FileDescriptorSet;

    use super::*;

    #[test]
    fn the_older_wire_is_as_its_clients_know_it() {
        let text = |text: &str| text.to_owned();
        let (key, name) = (text("k"), Some(text("n")));
        let topic = chasqui::TopicRequest { key: key.clone(), topic_name: name.clone() };
        assert_eq!(topic.encode_to_vec(), b"\x0a\x01k\x12\x01n");
        let queue = chasqui::PublishQueueRequest { key, queue_name: name, message: text("m") };
        assert_eq!(queue.encode_to_vec(), b"\x0a\x01k\x12\x01n\x1a\x01m");
        // sint32 is zigzag: 400 is 800.
        assert_eq!(chasqui::CodeResponse { code: 400 }.encode_to_vec(), b"\x08\xa0\x06");
        let user = chasqui::UserResponse { key: text("k"), code: 200 };
        assert_eq!(user.encode_to_vec(), b"\x0a\x01k\x10\x90\x03");
        let list = chasqui::ListResponse { code: 200, names: vec![text("a"), text("b")] };
        assert_eq!(list.encode_to_vec(), b"\x08\x90\x03\x12\x01a\x12\x01b");
        let message = chasqui::MessageResponse { code: 200, message: text("m") };
        assert_eq!(message.encode_to_vec(), b"\x08\x90\x03\x12\x01m");
    }

    #[test]
    fn services_are_described() {
        let set = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).unwrap();
        let services = set.file.iter().flat_map(|file| {
            file.service.iter().map(|service| {
                let methods = service.method.iter().map(|method| method.name());
                format!(
                    "{}/{}: {}",
                    file.package(),
                    service.name(),
                    methods.collect::<Vec<_>>().join(" ")
                )
            })
        });
        let older: Vec<_> = services.filter(|service| service.starts_with('/')).collect();
        assert_eq!(
            older,
            [
                "/UserService: Create",
                "/TopicService: Create Delete ListTopics SubscribeTopic PublishTopic ConsumeTopic",
                "/QueueService: Create Delete ListQueues SubscribeQueue PublishQueue ConsumeQueue",
            ]
        );
        // What is imported is described too.
        let files: Vec<_> = set.file.iter().map(|file| file.name()).collect();
        assert!(files.contains(&"google/protobuf/duration.proto"), "{files:?}");
        assert!(files.contains(&"mom/v1/mom.proto"), "{files:?}");
    }
}
