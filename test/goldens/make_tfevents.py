"""TensorBoard events as Google's protocol buffers write them: /usr/bin/python3 test/goldens/make_tfevents.py

Writes tfevents.json: events, the bytes of their records, and checksums of known strings. The messages are declared here as in TensorFlow's
event.proto and summary.proto; the records' framing and CRC-32C, bit by bit, are written from their descriptions. Made with Debian 12's
python3-protobuf 3.21.12.
"""
import json
import pathlib
import struct

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

FIELD = descriptor_pb2.FieldDescriptorProto
TYPES = {
    "double": FIELD.TYPE_DOUBLE, "float": FIELD.TYPE_FLOAT, "int64": FIELD.TYPE_INT64, "string": FIELD.TYPE_STRING,
    "enum": FIELD.TYPE_ENUM, "message": FIELD.TYPE_MESSAGE,
}
# (field, number, type, name of its message or enum, repeated, oneof)
MESSAGES = {
    "Value": [("tag", 1, "string", None, False, None), ("simple_value", 2, "float", None, False, "value")],
    "Summary": [("value", 1, "message", "Value", True, None)],
    "SessionLog": [("status", 1, "enum", "SessionStatus", False, None)],
    "Event": [
        ("wall_time", 1, "double", None, False, None), ("step", 2, "int64", None, False, None),
        ("file_version", 3, "string", None, False, "what"), ("summary", 5, "message", "Summary", False, "what"),
        ("session_log", 7, "message", "SessionLog", False, "what"),
    ],
}


def event_class():
    file = descriptor_pb2.FileDescriptorProto(name="event.proto", package="t", syntax="proto3")
    status = file.enum_type.add(name="SessionStatus")
    for number, name in enumerate(["STATUS_UNSPECIFIED", "START", "STOP", "CHECKPOINT"]):
        status.value.add(name=name, number=number)
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, number, kind, of, repeated, oneof in fields:
            label = FIELD.LABEL_REPEATED if repeated else FIELD.LABEL_OPTIONAL
            made = message.field.add(name=field, number=number, type=TYPES[kind], label=label)
            if of:
                made.type_name = f".t.{of}"
            if oneof:
                if not message.oneof_decl:
                    message.oneof_decl.add(name=oneof)
                made.oneof_index = 0
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.MessageFactory(pool).GetPrototype(pool.FindMessageTypeByName("t.Event"))


def crc32c(data):
    register = 0xFFFFFFFF
    for byte in data:
        register ^= byte
        for _ in range(8):
            register = (register >> 1) ^ (0x82F63B78 if register & 1 else 0)
    return register ^ 0xFFFFFFFF


def masked(data):
    crc = crc32c(data)
    return struct.pack("<I", (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF)


def record(data):
    length = struct.pack("<Q", len(data))
    return length + masked(length) + data + masked(data)


EVENTS = [
    ({"fileVersion": "brain.Event:2"}, 1700000000.25),
    ({"start": 1}, 1700000001.0),
    ({"start": 300}, 1700000001.0),
    ({"step": 0, "scalars": {"train/loss": 2.302585}}, 1.5),
    ({"step": 127, "scalars": {"train/loss": 1.5, "train/lr": 0.005}}, 1700000002.5),
    ({"step": 128, "scalars": {"test/loss": -0.0, "test/accuracy": 0.25}}, 1700000003.0),
    ({"step": 2 ** 40 + 5, "scalars": {"größe": 1e-30}}, 1e9),
    ({"step": 16384, "scalars": {f"tag {i}": i / 7 for i in range(40)}}, 1e9),
]


def main():
    Event = event_class()
    events = []
    for event, wall in EVENTS:
        message = Event(wall_time=wall)
        if "fileVersion" in event:
            message.file_version = event["fileVersion"]
        elif "start" in event:
            message.step = event["start"]
            message.session_log.status = 1
        else:
            message.step = event["step"]
            message.summary.SetInParent()
            for tag, value in event["scalars"].items():
                message.summary.value.add(tag=tag, simple_value=value)
        events.append({"event": event, "wallSeconds": wall, "record": record(message.SerializeToString()).hex()})
    checksums = [{"hex": data.hex(), "crc32c": crc32c(data)} for data in [b"", b"a", bytes(range(256)), b"forkstep" * 9 + b"!"]]
    path = pathlib.Path(__file__).with_name("tfevents.json")
    path.write_text(json.dumps({"events": events, "checksums": checksums}, ensure_ascii=False, indent=1) + "\n")


main()
