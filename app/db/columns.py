"""What all tables share: the list that they stand on, and columns of one kind."""

from sqlalchemy import DateTime, MetaData, text

metadata = MetaData(naming_convention={"ix": "%(table_name)s_%(column_0_N_name)s", "ck": "%(table_name)s_%(constraint_name)s"})

AT = DateTime(timezone=True)
ZERO = text("0")
