//! Stores in a cloud: which address means which, and where credentials come from.

use std::sync::Arc;

use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::path::Path as StorePath;
use object_store::prefix::PrefixStore;
use object_store::{Error, ObjectStore};

/// Opens the store at `url`. Credentials, regions and endpoints come from the environment (`AWS_..`, `AZURE_..`,
/// `GOOGLE_..`); what `said` says stands over it.
pub(super) fn open(url: &str, said: &[(&str, &str)]) -> Result<Arc<dyn ObjectStore>, Error> {
    let (scheme, rest) = url.split_once("://").unwrap_or_default();
    let prefix = rest.split_once('/').map_or("", |(_, prefix)| prefix);
    let prefix = StorePath::parse(prefix)?;
    macro_rules! build {
        ($builder:ident) => {{
            let mut builder = $builder::from_env().with_url(url);
            for (key, value) in said {
                builder = builder.with_config(key.parse()?, *value);
            }
            Arc::new(PrefixStore::new(builder.build()?, prefix))
        }};
    }
    Ok(match scheme {
        "az" => build!(MicrosoftAzureBuilder),
        "gs" => build!(GoogleCloudStorageBuilder),
        _ => build!(AmazonS3Builder),
    })
}
