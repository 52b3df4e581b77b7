"""One kind of record: by key, bounded, kept in the storage."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar

import msgspec

from mqttcore import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from .storage import Storage

__all__ = ["RegistryError", "Table"]

Record = TypeVar("Record", bound=msgspec.Struct)


class RegistryError(Exception):
    """The registry cannot do what it was asked. code: as in the errors of OpenAPI. The text has no secrets."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


class Table(Generic[Record]):
    """Records of one kind. key_of: what tells them apart, without line breaks; maximum: how many there may be.

    Those of the configuration are kept for as long as the process runs, over those of the same key in the storage, and
    can't be changed.
    """

    def __init__(
        self,
        name: str,
        record_type: type[Record],
        key_of: Callable[[Record], tuple[str, ...]],
        *,
        maximum: int,
        storage: Storage,
    ) -> None:
        self.name = name
        self.maximum = maximum
        self._type = record_type
        self._key_of = key_of
        self._storage = storage
        self._records: dict[tuple[str, ...], Record] = {}
        self._fixed: set[tuple[str, ...]] = set()

    def load(self, records: dict[str, Any], configured: Iterable[Record]) -> None:
        """Take what was stored, and over it what is configured. StoreError names what does not fit."""
        for record in configured:
            key = self._key_of(record)
            self._records[key] = record
            self._fixed.add(key)
        for text, plain in records.items():
            try:
                record = msgspec.convert(plain, self._type)
            except msgspec.ValidationError as error:
                raise StoreError("corrupt", f"table {self.name}: {error}") from error
            key = self._key_of(record)
            if "\n".join(key) != text:
                raise StoreError("corrupt", f"table {self.name}: a record stands under the key of another")
            self._records.setdefault(key, record)
        if len(self._records) > self.maximum:
            raise StoreError(
                "corrupt", f"table {self.name}: {len(self._records)} records, and {self.maximum} are allowed"
            )

    def put(self, record: Record) -> None:
        """Add or replace. RegistryError: full, or configured."""
        key = self._key_of(record)
        if key in self._fixed:
            raise RegistryError("ParameterCheckFailed", f"{self.name}: stands in the configuration, change it there")
        if key not in self._records and len(self._records) >= self.maximum:
            raise RegistryError("ParameterCheckFailed", f"{self.name}: {self.maximum} are there, more are not allowed")
        self._records[key] = record
        self._storage.put(self.name, "\n".join(key), record)

    def remove(self, *key: str) -> Record | None:
        """Remove and return a record, None when there is none. RegistryError: configured."""
        if key in self._fixed:
            raise RegistryError("ParameterCheckFailed", f"{self.name}: stands in the configuration, remove it there")
        record = self._records.pop(key, None)
        if record is not None:
            self._storage.put(self.name, "\n".join(key), None)
        return record

    def find(self, *key: str) -> Record | None:
        """Return a record, or None."""
        return self._records.get(key)

    def __contains__(self, key: tuple[str, ...]) -> bool:
        """Say whether there is a record."""
        return key in self._records

    def __iter__(self) -> Iterator[Record]:
        """Iterate over the records, oldest first."""
        return iter(self._records.values())

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._records)
