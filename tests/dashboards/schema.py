"""The dashboards against Grafana's own types (npm `@grafana/schema`), checked by TypeScript's compiler.

Each panel as a literal of its type: an option that doesn't exist, or of the wrong kind, is an error of the compiler.
"""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

VERSION = "11.6"
"""Of Grafana: that of grafana-foundation-sdk in pyproject.toml."""

HEADER = """\
import type { AnnotationQuery, Dashboard, Panel, RowPanel, VariableModel } from
  './node_modules/@grafana/schema/dist/esm/raw/dashboard/x/dashboard_types.gen';
%s
/** As the type is written in JSON: members of enums are their strings. */
type Plain<T> = 0 extends 1 & T ? any : T extends string ? `${T}` : T extends number | boolean | null | undefined ? T
  : T extends Array<infer E> ? Array<Plain<E>> : T extends object ? { [K in keyof T]: Plain<T[K]> } : T;
/** Of Prometheus' data source, whose types are in no package of their own. */
type Query = {
  refId: string; expr: string; datasource: { type: string; uid: string }; legendFormat?: string; instant: boolean;
  range: boolean; format?: 'table' | 'heatmap' | 'time_series';
};
type Fields = NonNullable<Panel['fieldConfig']>;
type Of<Options, Custom> = Omit<Plain<Panel>, 'options' | 'fieldConfig' | 'targets'> & {
  options?: Plain<Partial<Options>>;
  targets: Array<Query>;
  fieldConfig: Omit<Plain<Fields>, 'defaults'> & {
    defaults: Omit<Plain<Fields['defaults']>, 'custom'> & { custom?: Plain<Partial<Custom>> };
  };
};
/** What Prometheus' annotations and interval variables have beside what every one has. */
type Annotation = Plain<AnnotationQuery> & {
  expr: string; step: string; titleFormat: string; textFormat: string; tagKeys: string; useValueForTime: boolean;
};
type Variable = Plain<VariableModel> & { auto?: boolean; auto_count?: number; auto_min?: string };
"""
KINDS = {
    "stat": ("Stat", False), "timeseries": ("TimeSeries", True), "heatmap": ("Heatmap", True),
    "state-timeline": ("StateTimeline", True), "table": ("Table", True), "barchart": ("BarChart", True),
}  # fmt: skip


def check_schema(paths: list[Path], folder: Path) -> list[str]:
    """What the compiler has to say; nothing when all is well. Raises SystemExit where there is no npm."""
    if not shutil.which("npm"):
        raise SystemExit("The check against Grafana's types needs npm; install with: sudo apt-get install npm")
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "node_modules" / ".bin" / "tsc").exists():
        (folder / "package.json").write_text('{"private": true}')
        install = ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "--silent"]
        subprocess.run([*install, f"@grafana/schema@{VERSION}", "typescript@5"], cwd=folder, check=True)
    names = []
    for path in paths:
        names.append(f"{path.stem}.ts")
        (folder / names[-1]).write_text(_typed(json.loads(path.read_text())))
    options = ["--noEmit", "--strict", "--skipLibCheck", "--module", "esnext", "--moduleResolution", "bundler"]
    command = ["node_modules/.bin/tsc", *options, "--target", "es2022", *names]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    return (done.stdout + done.stderr).splitlines() if done.returncode else []


def _typed(dashboard: dict[str, Any]) -> str:
    lines = [HEADER % "\n".join(_import(kind, *names) for kind, names in KINDS.items())]
    for k, panel in enumerate(dashboard["panels"]):
        name = panel["type"].replace("-", "_")
        kind = (
            "Plain<RowPanel>" if name == "row" else f"Of<{name}_o, {f'{name}_f' if KINDS[panel['type']][1] else '{}'}>"
        )
        lines.append(f"export const panel{k}: {kind} = {json.dumps(panel, indent=1)};")
    for k, variable in enumerate(dashboard["templating"]["list"]):
        lines.append(f"export const variable{k}: Variable = {json.dumps(variable, indent=1)};")
    for k, annotation in enumerate(dashboard["annotations"]["list"]):
        lines.append(f"export const annotation{k}: Annotation = {json.dumps(annotation, indent=1)};")
    whole = {**dashboard, "panels": [], "templating": {}, "annotations": {}}
    lines.append(f"export const dashboard: Plain<Dashboard> = {json.dumps(whole, indent=1)};")
    return "\n".join(lines)


def _import(kind: str, stem: str, has_fields: bool) -> str:
    name, folder = kind.replace("-", "_"), kind.replace("-", "")
    types = f"Options as {name}_o" + (f", FieldConfig as {name}_f" if has_fields else "")
    base = "./node_modules/@grafana/schema/dist/esm/raw/composable"
    return f"import type {{ {types} }} from '{base}/{folder}/panelcfg/x/{stem}PanelCfg_types.gen';"
