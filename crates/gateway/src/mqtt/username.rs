//! The user name of a device: `{host}/{device}/[?]api-version=..&DeviceClientType=..`.
//!
//! Ids stand in it unencoded. The api-version is not looked at. Whether the device may connect is
//! decided in [`super::admit`].

use percent_encoding::percent_decode_str;

/// Bytes of a user name at the most.
pub const USERNAME_BYTES_MAX: usize = 4 * 1024;

/// A user name, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Username<'a> {
    /// The hub, possibly with a port; may differ from the host that was dialled.
    pub host: &'a str,
    /// The device.
    pub device: &'a str,
    /// The module, for a module identity.
    pub module: Option<&'a str>,
    /// `DeviceClientType`, decoded: the SDK and the product.
    pub client_type: Option<String>,
    /// `model-id`, decoded.
    pub model_id: Option<String>,
}

impl<'a> Username<'a> {
    /// Takes `text` apart, or `None` if it is nothing like a device's user name.
    pub fn parse(text: &'a str) -> Option<Self> {
        if text.len() > USERNAME_BYTES_MAX {
            return None;
        }
        let (host, rest) = text.split_once('/')?;
        let (device, rest) = rest.split_once('/').unwrap_or((rest, ""));
        if host.is_empty() || device.is_empty() {
            return None;
        }
        // What follows is empty, properties, or a module with or without properties. Properties are
        // recognised by '?' or by a '=' before any slash: an unencoded value may contain slashes.
        let is_properties = |part: &str| {
            part.is_empty()
                || part.starts_with('?')
                || part.split('/').next().is_some_and(|p| p.contains('='))
        };
        let (module, properties) = if is_properties(rest) {
            (None, rest)
        } else {
            let (module, properties) = rest.split_once('/').unwrap_or((rest, ""));
            if !is_properties(properties) {
                return None;
            }
            (Some(module), properties)
        };
        let mut found = Self {
            host,
            device,
            module,
            client_type: None,
            model_id: None,
        };
        // One old client separates DeviceClientType with a slash.
        let properties = properties
            .strip_prefix('?')
            .unwrap_or(properties)
            .replace("/DeviceClientType=", "&DeviceClientType=");
        for pair in properties.split('&') {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = || percent_decode_str(value).decode_utf8_lossy().into_owned();
            match key {
                "DeviceClientType" => found.client_type = found.client_type.or_else(|| Some(value())),
                "model-id" => found.model_id = found.model_id.or_else(|| Some(value())),
                _ => {}
            }
        }
        Some(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn user_names_of_the_sdks_are_read() {
        let python = "localhost/dev-1/?api-version=2019-10-01&DeviceClientType=azure-iot-device-iothub-py%2F2.14.0%283.11.7%3BLinux%3Bx86_64%29MyProd%2F1.0";
        let read = Username::parse(python).unwrap();
        assert_eq!(
            (read.host, read.device, read.module),
            ("localhost", "dev-1", None)
        );
        assert_eq!(
            read.client_type.as_deref(),
            Some("azure-iot-device-iothub-py/2.14.0(3.11.7;Linux;x86_64)MyProd/1.0")
        );
        let pnp = "localhost/dev-1/?api-version=2020-09-30&DeviceClientType=py&model-id=dtmi%3Acom%3Aexample%3AThermostat%3B1";
        assert_eq!(
            Username::parse(pnp).unwrap().model_id.as_deref(),
            Some("dtmi:com:example:Thermostat;1")
        );
        let c = "hub.example/dev-1/api-version=2017-11-08-preview&DeviceClientType=iothubclient/1.1";
        assert_eq!(Username::parse(c).unwrap().device, "dev-1");
        let bare = Username::parse("hub.example/dev-1").unwrap();
        assert_eq!(
            (bare.device, bare.module, bare.client_type),
            ("dev-1", None, None)
        );
        let old = Username::parse("h/d/api-version=1/DeviceClientType=x").unwrap();
        assert_eq!((old.module, old.client_type.as_deref()), (None, Some("x")));
        let module = Username::parse("localhost/dev-1/mod A/?api-version=1").unwrap();
        assert_eq!((module.device, module.module), ("dev-1", Some("mod A")));
        for wrong in ["", "host", "/dev", "host/", "host//", "h/d/m/n/?api-version=1"] {
            assert_eq!(Username::parse(wrong), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn noise_never_panics(noise in ".{0,200}") { let _ = Username::parse(&noise); }
    }
}
