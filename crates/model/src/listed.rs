//! Enums that are lists: each of them with a line that says what it means, some with a name or with a count of this
//! process.
//!
//! For [`crate::alarm`], [`crate::mutant`] and [`crate::point`].

/// The enum, all of them in a list, what each means, and, where they have one, its name.
macro_rules! listed {
    (
        $(#[doc = $about:literal])+ $kind:ident:
        $($(#[doc = $what:literal])+ $name:ident $(= $text:literal)?,)+
    ) => {
        $(#[doc = $about])+
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum $kind {
            $($(#[doc = $what])+ $name,)+
        }

        impl $kind {
            /// All of them.
            pub const ALL: &[$kind] = &[$($kind::$name,)+];

            /// What it means, in one line.
            pub fn what(self) -> &'static str {
                match self {
                    $($kind::$name => concat!($($what),+).trim_ascii(),)+
                }
            }
        }

        $crate::listed::listed!(@names $kind: $($name $(= $text)?,)+);
    };
    (@names $kind:ident: $($name:ident = $text:literal,)+) => {
        impl $kind {
            /// As others call it.
            pub fn name(self) -> &'static str {
                match self {
                    $($kind::$name => $text,)+
                }
            }
        }
    };
    (@names $kind:ident: $($name:ident,)+) => {};
}

/// How often each of an enum's list was met in this process: counted by `$count`.
macro_rules! counted {
    ($kind:ident: $(#[doc = $about:literal])+ $count:ident) => {
        impl $kind {
            $(#[doc = $about])+
            #[inline]
            pub fn $count(self) {
                self.counter().fetch_add(1, ::std::sync::atomic::Ordering::Relaxed);
            }

            /// How many there were in this process.
            pub fn count(self) -> u64 {
                self.counter().load(::std::sync::atomic::Ordering::Relaxed)
            }

            fn counter(self) -> &'static ::std::sync::atomic::AtomicU64 {
                use ::std::sync::atomic::AtomicU64;
                static COUNTS: [AtomicU64; $kind::ALL.len()] = [const { AtomicU64::new(0) }; $kind::ALL.len()];
                &COUNTS[self as usize]
            }
        }
    };
}

pub(crate) use {counted, listed};
