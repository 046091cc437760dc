"""The tables of the package of example data: which columns name rows, which hold numbers, and which are held out.

Knows nothing of files or pictures. A table and its near-copies (two files of the same prices) are never on both
sides of the split.
"""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Group:
    """A column whose values name the rows."""

    column: str
    shown: str
    part: Literal["all", "first word", "year", "month", "day", "month of year"] = "all"
    timed: bool = False
    named: tuple[tuple[str, str], ...] = ()
    """Better names for some values."""


@dataclass(frozen=True)
class Measure:
    """A column of numbers and how several rows become one; without a column, the rows are counted."""

    column: str
    shown: str
    unit: str = ""
    how: Literal["mean", "sum"] = "mean"
    scale: float = 1.0


@dataclass(frozen=True)
class Table:
    """One file of the package."""

    file: str
    subject: str
    groups: tuple[Group, ...]
    measures: tuple[Measure, ...]
    together: bool = False
    """Measures of one unit may stand side by side as series."""

    @property
    def name(self) -> str:
        return self.file.rsplit(".", 1)[0]

    def columns(self) -> tuple[str, ...]:
        """The columns that are used."""
        used = [group.column for group in self.groups] + [m.column for m in self.measures if m.column]
        return tuple(dict.fromkeys(used))


def _count(shown: str) -> Measure:
    return Measure("", shown, how="sum")


def _year(column: str, shown: str = "Year") -> Group:
    return Group(column, shown, "year", timed=True)


def _month(column: str) -> Group:
    return Group(column, "Month", "month", timed=True)


_SEXES = (("1", "Men"), ("2", "Women"), ("men", "Men"), ("women", "Women"), ("MALE", "Male"), ("FEMALE", "Female"))

TRAINING_TABLES: tuple[Table, ...] = (
    Table(
        "cars.json",
        "Cars",
        (
            Group("Name", "Maker", "first word"),
            Group("Origin", "Origin"),
            Group("Cylinders", "Cylinders"),
            _year("Year"),
        ),
        (
            _count("Number of cars"),
            Measure("Miles_per_Gallon", "Miles per gallon"),
            Measure("Horsepower", "Horsepower", "hp"),
            Measure("Weight_in_lbs", "Weight", "lb"),
            Measure("Acceleration", "Acceleration", "s"),
            Measure("Displacement", "Displacement", "cubic inches"),
        ),
    ),
    Table(
        "gapminder.json",
        "Countries",
        (Group("country", "Country"), _year("year")),
        (
            Measure("life_expect", "Life expectancy", "years"),
            Measure("fertility", "Children per woman"),
            Measure("pop", "Population"),
        ),
    ),
    Table(
        "gapminder-health-income.csv",
        "Countries",
        (Group("country", "Country"), Group("region", "Region")),
        (
            Measure("income", "Income", "dollars"),
            Measure("health", "Life expectancy", "years"),
            Measure("population", "Population", how="sum"),
            _count("Number of countries"),
        ),
    ),
    Table(
        "stocks.csv",
        "Stock prices",
        (Group("symbol", "Company"), _year("date"), _month("date")),
        (Measure("price", "Price", "dollars"),),
    ),
    Table(
        "weather.csv",
        "Weather",
        (Group("location", "City"), Group("weather", "Weather"), _month("date"), _year("date")),
        (
            Measure("temp_max", "Highest", "°C"),
            Measure("temp_min", "Lowest", "°C"),
            Measure("wind", "Wind", "m/s"),
            Measure("precipitation", "Precipitation", "mm", "sum"),
            _count("Days"),
        ),
        together=True,
    ),
    Table(
        "movies.json",
        "Money of films",
        (
            Group("Major Genre", "Genre"),
            Group("MPAA Rating", "Rating"),
            Group("Distributor", "Distributor"),
            Group("Creative Type", "Type"),
            Group("Source", "Source"),
            _year("Release Date"),
        ),
        (
            _count("Number of films"),
            Measure("US Gross", "US gross", "million dollars", scale=1e-6),
            Measure("Worldwide Gross", "World gross", "million dollars", scale=1e-6),
            Measure("Production Budget", "Budget", "million dollars", scale=1e-6),
            Measure("IMDB Rating", "Rating"),
            Measure("Running Time min", "Length", "min"),
        ),
        together=True,
    ),
    Table(
        "unemployment-across-industries.json",
        "Unemployment",
        (Group("series", "Industry"), _year("year"), _month("date")),
        (Measure("count", "Unemployed", "thousand"), Measure("rate", "Rate", "%")),
    ),
    Table(
        "population.json",
        "Population",
        (_year("year"), Group("age", "Age"), Group("sex", "Sex", named=_SEXES)),
        (Measure("people", "People", how="sum"),),
    ),
    Table(
        "population_engineers_hurricanes.csv",
        "States",
        (Group("state", "State"),),
        (
            Measure("population", "Population"),
            Measure("engineers", "Engineers", "per thousand", scale=1e3),
            Measure("hurricanes", "Hurricanes"),
        ),
    ),
    Table(
        "income.json",
        "Households",
        (Group("name", "State"), Group("region", "Region"), Group("group", "Income")),
        (Measure("pct", "Share of households", "%", scale=100.0), Measure("total", "Households")),
    ),
    Table("obesity.json", "Obesity", (Group("state", "State"),), (Measure("rate", "Obesity", "%", scale=100.0),)),
    Table(
        "co2-concentration.csv",
        "CO2",
        (_year("Date"), _month("Date")),
        (Measure("CO2", "CO2", "ppm"),),
    ),
    Table("sp500.csv", "Index", (_year("date"), _month("date")), (Measure("price", "Index", "points"),)),
    Table(
        "flights-2k.json",
        "Flights",
        (Group("origin", "Origin"), Group("destination", "Destination")),
        (_count("Number of flights"), Measure("distance", "Distance", "miles")),
    ),
    Table("airports.csv", "Airports", (Group("state", "State"),), (_count("Number of airports"),)),
    Table(
        "lookup_people.csv",
        "People",
        (Group("name", "Name"),),
        (Measure("age", "Age", "years"), Measure("height", "Height", "cm")),
    ),
    Table("udistrict.json", "Restaurants", (Group("key", "Kitchen"),), (_count("Restaurants"),)),
    Table(
        "birdstrikes.csv",
        "Bird strikes",
        (
            Group("Origin State", "State"),
            Group("Phase of flight", "Phase"),
            Group("Wildlife Size", "Size"),
            Group("Time of day", "Time of day"),
            Group("Aircraft Airline Operator", "Airline"),
        ),
        (_count("Strikes"), Measure("Speed IAS in knots", "Speed", "knots")),
    ),
    Table(
        "ohlc.json",
        "Index",
        (Group("date", "Date", "day", timed=True),),
        (
            Measure("open", "Open", "points"),
            Measure("high", "High", "points"),
            Measure("low", "Low", "points"),
            Measure("close", "Close", "points"),
        ),
        together=True,
    ),
)

HELDOUT_TABLES: tuple[Table, ...] = (
    Table(
        "barley.json",
        "Barley",
        (Group("variety", "Variety"), Group("site", "Site"), Group("year", "Year")),
        (Measure("yield", "Yield", "bushels"),),
    ),
    Table(
        "crimea.json",
        "Deaths in the war",
        (Group("date", "Month", "month of year", timed=True),),
        (
            Measure("wounds", "Wounds", how="sum"),
            Measure("other", "Other causes", how="sum"),
            Measure("disease", "Disease", how="sum"),
        ),
        together=True,
    ),
    Table(
        "disasters.csv",
        "Disasters",
        (Group("Entity", "Disaster"), _year("Year")),
        (Measure("Deaths", "Deaths", how="sum"),),
    ),
    Table(
        "driving.json",
        "Driving",
        (_year("year"),),
        (Measure("miles", "Miles driven"), Measure("gas", "Price of gas", "dollars")),
    ),
    Table(
        "football.json",
        "Goals a game",
        (Group("division", "Division"), Group("home_team", "Team"), _year("date")),
        (
            _count("Games at home"),
            Measure("home_score", "Home goals"),
            Measure("away_score", "Away goals"),
        ),
        together=True,
    ),
    Table(
        "iowa-electricity.csv",
        "Electricity",
        (Group("source", "Source"), _year("year")),
        (Measure("net_generation", "Electricity", "GWh", "sum"),),
    ),
    Table(
        "jobs.json",
        "Jobs",
        (Group("job", "Job"), Group("sex", "Sex", named=_SEXES), _year("year")),
        (Measure("count", "Workers", how="sum"), Measure("perc", "Share of workers", "%", "sum", 100.0)),
    ),
    Table(
        "penguins.json",
        "Penguins",
        (Group("Species", "Species"), Group("Island", "Island"), Group("Sex", "Sex", named=_SEXES)),
        (
            _count("Number of penguins"),
            Measure("Beak Length (mm)", "Beak length", "mm"),
            Measure("Beak Depth (mm)", "Beak depth", "mm"),
            Measure("Flipper Length (mm)", "Flipper length", "mm"),
            Measure("Body Mass (g)", "Body mass", "g"),
        ),
        together=True,
    ),
    Table(
        "us-employment.csv",
        "Employment",
        (_year("month"), _month("month")),
        tuple(
            Measure(column, shown, "thousand")
            for column, shown in (
                ("construction", "Construction"),
                ("manufacturing", "Manufacturing"),
                ("retail_trade", "Retail trade"),
                ("government", "Government"),
                ("information", "Information"),
                ("utilities", "Utilities"),
                ("other_services", "Other services"),
                ("financial_activities", "Finance"),
                ("leisure_and_hospitality", "Leisure"),
            )
        ),
        together=True,
    ),
    Table(
        "wheat.json",
        "Wheat and wages",
        (_year("year"),),
        (Measure("wheat", "Wheat", "shillings"), Measure("wages", "Wages", "shillings")),
        together=True,
    ),
)
