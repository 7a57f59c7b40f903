//! What a device may call a file, and what the file is called in the store and in addresses.
//!
//! A store may be a folder, so every part of a name is one that file systems take.

use std::fmt::Write as _;

use dunlin_model::id::DeviceId;
use dunlin_model::upload::{BLOB_NAME_BYTES_MAX, BLOB_NAME_PARTS_MAX};

/// Bytes of one part of a path in the store: most file systems take 255.
const PART_BYTES_MAX: usize = 240;

/// What is wrong with the name that `device` gives a file, if anything is.
pub(crate) fn problem(device: &DeviceId, blob: &str) -> Option<&'static str> {
    if blob.is_empty() || blob.len() > BLOB_NAME_BYTES_MAX {
        return Some("blobName has 1 to 1024 bytes");
    }
    if blob.chars().any(char::is_control) {
        return Some("blobName has a control character");
    }
    if blob.split('/').count() > BLOB_NAME_PARTS_MAX {
        return Some("blobName has more than 32 parts");
    }
    let is_no_part = |part: &str| part.is_empty() || part == "." || part == "..";
    if blob.split('/').any(is_no_part) {
        return Some("a part of blobName between slashes is empty, . or ..");
    }
    match store_path("c", device, blob) {
        None => Some("a part of blobName is too long for a file, or the device's id is"),
        Some(_) => None,
    }
}

/// Where a file lies in the store. `None` if one of its parts is too long.
pub(crate) fn store_path(container: &str, device: &DeviceId, blob: &str) -> Option<String> {
    below(device_folder(container, device)?, blob.split('/'))
}

/// The folder of all files of a device. `None` if it has none, since its id is too long.
pub(crate) fn device_folder(container: &str, device: &DeviceId) -> Option<String> {
    below(container.to_owned(), [device.device_part()])
}

fn below<'a>(mut path: String, parts: impl IntoIterator<Item = &'a str>) -> Option<String> {
    for part in parts {
        let part = stored(part);
        if part.len() > PART_BYTES_MAX {
            return None;
        }
        path.push('/');
        path.push_str(&part);
    }
    Some(path)
}

/// A part of a name as it stands in the store: what means something to file systems or stores is percent-encoded.
fn stored(part: &str) -> String {
    if part.bytes().all(|byte| byte == b'.') {
        return part.replace('.', "%2E");
    }
    let mut out = String::with_capacity(part.len());
    for c in part.chars() {
        match c {
            '%' | '#' | '?' | '*' | ':' | '|' | '"' | '<' | '>' | '\\' | '^' | '`' | '{' | '}' | '['
            | ']' | '~' | '/' => {
                let _ = write!(out, "%{:02X}", u32::from(c));
            }
            _ => out.push(c),
        }
    }
    out
}

/// A path as it stands in an address.
pub(crate) fn in_address(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for byte in path.bytes() {
        match byte {
            b'/' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            _ if byte.is_ascii_alphanumeric() => out.push(char::from(byte)),
            _ => {
                let _ = write!(out, "%{byte:02X}");
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(id: &str) -> DeviceId {
        DeviceId::parse(id).expect("a device id")
    }

    #[test]
    fn names_that_are_no_files_are_refused() {
        let dev = device("dev");
        let long = "x".repeat(240);
        for name in [
            "x",
            "a/b.c/d e",
            ".hidden",
            "a..b",
            "...",
            "ä/ß",
            "#1",
            long.as_str(),
        ] {
            assert_eq!(problem(&dev, name), None, "{name}");
        }
        let deep = vec!["x"; 32].join("/");
        assert_eq!(problem(&dev, &deep), None);
        for name in [
            "",
            "/",
            "/a",
            "a/",
            "a//b",
            ".",
            "..",
            "a/../b",
            "a/./b",
            "a\nb",
            "a\u{7f}",
            &"x".repeat(241),
            &"%".repeat(81),
            &format!("{deep}/x"),
            &"ab/".repeat(400),
        ] {
            assert!(problem(&dev, name).is_some(), "{name}");
        }
        assert!(problem(&device(&"%".repeat(100)), "x").is_some());
    }

    #[test]
    fn no_name_leads_out_of_its_devices_folder_or_to_anothers_file() {
        let path = |id, blob| store_path("uploads", &device(id), blob).expect("it is short");
        assert_eq!(path("dev", "a/b c.txt"), "uploads/dev/a/b c.txt");
        assert_eq!(path("..", "x"), "uploads/%2E%2E/x");
        assert_eq!(path("a%b", "x#1?"), "uploads/a%25b/x%231%3F");
        assert_eq!(path("...", "..."), "uploads/%2E%2E%2E/%2E%2E%2E");
        assert_ne!(path("d", "%23"), path("d", "#"));
        for id in ["dev", "..", "a%b"] {
            let folder = device_folder("uploads", &device(id)).expect("it is short");
            assert_eq!(path(id, "x/y"), format!("{folder}/x/y"));
        }
    }

    #[test]
    fn an_address_is_ascii() {
        assert_eq!(
            in_address("uploads/a b/ä%#?+"),
            "uploads/a%20b/%C3%A4%25%23%3F%2B"
        );
    }
}
