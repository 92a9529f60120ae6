"""Flavors."""

from sqlmodel import Session, col, select
from temporalio import activity

from activities.control.find import find_flavor
from activities.control.views import flavor_view
from hostler.contract.calls import CREATE_FLAVOR, DELETE_FLAVOR, LIST_FLAVORS, SHOW_FLAVOR, Filter, Nothing, Ref
from hostler.contract.errors import Conflict
from hostler.contract.resources import Flavor
from hostler.contract.validation import check_flavor
from models import Database
from models import Flavor as Row


class FlavorCalls:
    """Servers keep a copy of their flavor, so deleting one harms none of them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @activity.defn(name=CREATE_FLAVOR.name)
    def create_flavor(self, call: Flavor) -> Flavor:
        """Make it; the same one again is no error."""
        check_flavor(call)

        def change(session: Session) -> Flavor:
            for row in session.exec(select(Row).where((Row.id == call.id) | (Row.name == call.name))):
                if flavor_view(row) != call:
                    raise Conflict(
                        f"there is a flavor {row.name!r} already",
                        field="name",
                        value=call.name,
                        remedy="choose another name, or delete that one",
                    )
                return call
            session.add(Row(**call.model_dump()))
            return call

        return self._database.run(change)

    @activity.defn(name=LIST_FLAVORS.name)
    def list_flavors(self, call: Filter) -> list[Flavor]:
        """All of them, smallest first."""
        with self._database.read() as session:
            rows = session.exec(select(Row).order_by(col(Row.ram_mib), col(Row.vcpus), col(Row.name))).all()
            return [flavor_view(row) for row in rows]

    @activity.defn(name=SHOW_FLAVOR.name)
    def show_flavor(self, call: Ref) -> Flavor:
        """One."""
        with self._database.read() as session:
            return flavor_view(find_flavor(session, call.ref))

    @activity.defn(name=DELETE_FLAVOR.name)
    def delete_flavor(self, call: Ref) -> Nothing:
        """Remove it."""
        self._database.run(lambda session: session.delete(find_flavor(session, call.ref)))
        return Nothing()
