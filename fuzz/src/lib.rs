//! What all fuzz targets share: each writes its seeds into its corpus before it begins.
//!
//! The targets themselves live beside the decoders, in each crate's `fuzzing` module, where `cargo test`
//! drives them with `mutate.rs` as well (those of the `node` crate only there). Run them all
//! with `.ci/fuzz MINUTES`, one with `cargo fuzz run -s none NAME`.

use std::path::Path;

#[doc(hidden)]
pub use libfuzzer_sys;

/// Makes a fuzz target of a function over bytes and a function that makes its seeds.
#[macro_export]
macro_rules! target {
    ($name:literal, $run:path, $seeds:path) => {
        $crate::libfuzzer_sys::fuzz_target!(
            init: $crate::write_seeds($name, $seeds()),
            |data: &[u8]| $run(data)
        );
    };
}

/// Puts the seeds into `fuzz/corpus/NAME`, where libFuzzer looks next.
///
/// # Panics
/// If they cannot be written: fuzzing without them finds little.
pub fn write_seeds(name: &str, seeds: Vec<Vec<u8>>) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
    std::fs::create_dir_all(&folder).expect("the corpus folder can be made");
    for (place, seed) in seeds.iter().enumerate() {
        std::fs::write(folder.join(format!("seed-{place}")), seed).expect("a seed can be written");
    }
}
