//! The bridge from checked texts to typed fields: a struct names for each field its key, once.

/// A type that a checked text turns into.
pub(super) trait FromText: Sized {
    /// `None` if the text is not of this type; the key's own check has made sure it is.
    fn from_text(text: Option<&str>) -> Option<Self>;
}

macro_rules! parsed {
    ($($name:ty),*) => { $(
        impl FromText for $name {
            fn from_text(text: Option<&str>) -> Option<Self> {
                text?.trim().parse().ok()
            }
        }
    )* };
}
parsed!(i16, i32, i64, u16, u32, u64, usize, f64);

impl FromText for bool {
    fn from_text(text: Option<&str>) -> Option<Self> {
        Some(text?.trim().eq_ignore_ascii_case("true"))
    }
}

impl FromText for String {
    fn from_text(text: Option<&str>) -> Option<Self> {
        Some(text.unwrap_or_default().trim().to_owned())
    }
}

impl FromText for Vec<String> {
    fn from_text(text: Option<&str>) -> Option<Self> {
        Some(super::key::split_list(text.unwrap_or_default()).map(str::to_owned).collect())
    }
}

impl<T: FromText> FromText for Option<T> {
    fn from_text(text: Option<&str>) -> Option<Self> {
        match text.filter(|text| !text.trim().is_empty()) {
            Some(text) => T::from_text(Some(text)).map(Some),
            None => Some(None),
        }
    }
}

/// A struct whose fields are read from keys.
macro_rules! typed {
    (
        $(#[$meta:meta])*
        $seen:vis struct $name:ident { $($field:ident : $kind:ty = $key:literal),* $(,)? }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq)]
        $seen struct $name {
            $(#[doc = concat!("`", $key, "`")] pub $field: $kind,)*
        }
        impl $name {
            #[cfg(test)]
            pub(super) const KEYS: &[&str] = &[$($key),*];

            /// Reads each field; the values were checked against the table of keys.
            pub(super) fn read<'a>(
                value: impl Fn(&str) -> Option<std::borrow::Cow<'a, str>>,
            ) -> Self {
                Self {
                    $($field: super::typed::FromText::from_text(value($key).as_deref())
                        .expect(concat!($key, " was checked to be of the type of its field")),)*
                }
            }
        }
    };
}
pub(super) use typed;
